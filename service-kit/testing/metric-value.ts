import type { Metrics } from '../metrics.ts'

/**
 * The value of one series, read from the text that operators scrape: `metricValue(metrics, 'push_x_total', { reason: 'FULL' })`.
 * Labels must match exactly. For histograms ask for `name_count` or `name_sum`. Undefined when there is no such series.
 */
export async function metricValue(
  metrics: Metrics,
  name: string,
  labels: Record<string, string> = {},
): Promise<number | undefined> {
  const wanted = seriesName(name, Object.entries(labels))
  for (const line of (await metrics.text()).split('\n')) {
    const match = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/.exec(line)
    if (match === null) continue
    const [, lineName = '', labelText = '', value = ''] = match
    const lineLabels = [...labelText.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(
      ([, key = '', text = '']) => [key, text] as const,
    )
    if (seriesName(lineName, lineLabels) === wanted) return Number(value)
  }
  return undefined
}

function seriesName(name: string, labels: readonly (readonly [string, string])[]): string {
  const sorted = labels.map(([key, value]) => `${key}=${value}`).sort()
  return `${name}{${sorted.join(',')}}`
}
