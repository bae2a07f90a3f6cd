import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'

/**
 * What a process counts and measures. Names are `push_<service>_<thing>_<unit>`. Asking for a name again gives the same
 * metric; asking for it as another kind, or with other labels, is a defect and throws.
 */
export interface Metrics {
  /** Something that only grows: `.inc(labels?, by?)`. */
  counter<L extends string = never>(name: string, help: string, labelNames?: readonly L[]): Counter<L>
  /** Something that goes up and down: `.set(labels?, value)`, `.inc()`, `.dec()`. */
  gauge<L extends string = never>(name: string, help: string, labelNames?: readonly L[]): Gauge<L>
  /** How values spread over `buckets` (upper bounds, ascending): `.observe(labels?, value)`. */
  histogram<L extends string = never>(
    name: string,
    help: string,
    buckets: readonly number[],
    labelNames?: readonly L[],
  ): Histogram<L>
  /** Everything in the Prometheus text format. */
  text(): Promise<string>
}

/** Upper bounds in seconds that suit calls between services and whole deliveries. */
export const latencyBucketsSeconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]

/** Opens an empty set. With `processMetrics` it also tells memory, CPU, event-loop delay and garbage collection. */
export function createMetrics(options: { processMetrics?: boolean } = {}): Metrics {
  const registry = new Registry()
  if (options.processMetrics) collectDefaultMetrics({ register: registry })
  const kinds = new Map<string, string>()

  const known = <M>(name: string, kind: string, labelNames: readonly string[], create: () => M): M => {
    const shape = `${kind} with labels [${labelNames.join(', ')}]`
    const existing = registry.getSingleMetric(name)
    if (existing === undefined) {
      const metric = create()
      kinds.set(name, shape)
      return metric
    }
    const existingShape = kinds.get(name) ?? 'process metric'
    if (existingShape !== shape) throw new Error(`metric ${name} is a ${existingShape} already, not a ${shape}`)
    return existing as M
  }

  return {
    counter: <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
      known(
        name,
        'counter',
        labelNames,
        () => new Counter<L>({ name, help, labelNames: [...labelNames], registers: [registry] }),
      ),
    gauge: <L extends string = never>(name: string, help: string, labelNames: readonly L[] = []) =>
      known(name, 'gauge', labelNames, () => new Gauge<L>({ name, help, labelNames: [...labelNames], registers: [registry] })),
    histogram: <L extends string = never>(
      name: string,
      help: string,
      buckets: readonly number[],
      labelNames: readonly L[] = [],
    ) =>
      known(
        name,
        'histogram',
        labelNames,
        () => new Histogram<L>({ name, help, buckets: [...buckets], labelNames: [...labelNames], registers: [registry] }),
      ),
    text: () => registry.metrics(),
  }
}
