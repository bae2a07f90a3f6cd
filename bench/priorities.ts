// What bulk in LOW costs HIGH: latency from publish to the device's handler, first alone, then while LOW is published as fast as the router takes it,
// and whether LOW still moves while HIGH is saturated. Registry, router, edge, the bulk publisher, and devices with the probes' publisher are processes
// apart, on a real Kafka and Cassandra; compare the ratio, not the numbers.
//
//   node bench/priorities.ts [seconds a phase, default 10]
import { fork } from 'node:child_process'
import { once } from 'node:events'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { Priority } from '../gen/push/v1/message.ts'
import { PublishMode, PublishServiceDefinition, type PublishStreamRequest } from '../gen/push/v1/publish.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { startRealPlane } from './real-plane.ts'

/** So many that none comes near the rate of one device, whatever is published. */
const deviceCount = 400
const probesPerSecond = 50
/** This file again, as the bulk publisher. */
const bulkWord = 'bulk'

const closers = createClosers(silentLog, systemClock)
try {
  const [first = '10', routerAddress = '', priority = ''] = process.argv.slice(2)
  if (first === bulkWord) await publishBulk(routerAddress, priority === 'HIGH' ? Priority.HIGH : Priority.LOW)
  else await compare(Number(first) * 1_000)
} finally {
  await closers.close({ graceMs: 5_000 })
}

async function compare(phaseMs: number): Promise<void> {
  const { plane, connect, close } = await startRealPlane()
  closers.add('plane', close)
  const [routerAddress = ''] = plane.routerAddresses

  /** What has been handled, by priority; probes carry the moment they were published. */
  const handled: Record<string, number> = {}
  let latencies: number[] = []
  await Promise.all(
    Array.from({ length: deviceCount }, (_, n) =>
      connect(`bench-${n}`, ({ priority, data }) => {
        handled[priority] = (handled[priority] ?? 0) + 1
        if (isProbe(data)) latencies.push(performance.now() - data.at)
      }),
    ),
  )
  const router = connectGrpc({ addresses: routerAddress, log: silentLog, clock: systemClock })
  closers.add('connection', () => router.close())
  const publish = router.client(PublishServiceDefinition)

  /** Publishes probes at an even rate and returns their latencies in ms, sorted; waits for the last of them. */
  async function probe(priority: Priority): Promise<number[]> {
    latencies = []
    const until = performance.now() + phaseMs
    const answers: Promise<unknown>[] = []
    for (let n = 0; performance.now() < until; n++) {
      const payload = Buffer.from(JSON.stringify({ at: performance.now() }))
      const target = { $case: 'deviceId' as const, value: `bench-${n % deviceCount}` }
      answers.push(publish.publish({ message: { target, payload, priority } }, { deadlineMs: 30_000 }))
      await systemClock.sleep(1_000 / probesPerSecond)
    }
    await Promise.all(answers)
    const giveUpAt = performance.now() + 30_000
    while (latencies.length < answers.length && performance.now() < giveUpAt) await systemClock.sleep(50)
    return latencies.sort((a, b) => a - b)
  }

  /** Has another process publish as fast as the router takes it, until stopped; that returns how many were accepted. */
  async function saturate(priority: 'HIGH' | 'LOW'): Promise<() => Promise<number>> {
    const child = fork(fileURLToPath(import.meta.url), [bulkWord, routerAddress, priority])
    closers.add('bulk publisher', async () => {
      child.kill()
    })
    const told = once(child, 'message')
    await once(child, 'spawn')
    return async () => {
      child.send('stop')
      return Number((await told)[0])
    }
  }

  await probe(Priority.HIGH) // warm
  const alone = await probe(Priority.HIGH)
  line('HIGH alone', alone)

  const stopLow = await saturate('LOW')
  await systemClock.sleep(2_000)
  const lowBefore = handled.LOW ?? 0
  const begun = performance.now()
  const crowded = await probe(Priority.HIGH)
  const lowPerSecond = Math.round((((handled.LOW ?? 0) - lowBefore) * 1_000) / (performance.now() - begun))
  line('HIGH while LOW is saturated', crowded)
  const ratio = (share: number) => (at(crowded, share) / at(alone, share)).toFixed(1)
  console.log(`${'ratio'.padEnd(34)} p50 ${ratio(0.5)}   p99 ${ratio(0.99)}`)
  console.log(`LOW meanwhile: ${lowPerSecond} handled a second, ${await stopLow()} accepted in all`)

  const stopHigh = await saturate('HIGH')
  await systemClock.sleep(2_000)
  line('LOW while HIGH is saturated', await probe(Priority.LOW))
  console.log(`HIGH meanwhile: ${await stopHigh()} accepted in all`)
}

/** Publishes until its parent says stop, then tells it how many were accepted. */
async function publishBulk(routerAddress: string, priority: Priority): Promise<void> {
  const router = connectGrpc({ addresses: routerAddress, log: silentLog, clock: systemClock })
  closers.add('connection', () => router.close())
  let stopped = false
  process.once('message', () => {
    stopped = true
  })
  async function* items(): AsyncGenerator<PublishStreamRequest> {
    const payload = Buffer.from('{}')
    for (let sequence = 1; !stopped; sequence++) {
      const target = { $case: 'deviceId' as const, value: `bench-${sequence % deviceCount}` }
      yield { sequence, publish: { message: messageOf(target, payload, priority), mode: PublishMode.QUEUED } }
    }
  }
  let accepted = 0
  for await (const { result } of router.client(PublishServiceDefinition).publishStream(items())) {
    if (result?.$case === 'accepted') accepted++
  }
  process.send?.(accepted)
  process.disconnect()
}

function isProbe(data: unknown): data is { at: number } {
  return typeof data === 'object' && data !== null && 'at' in data && typeof data.at === 'number'
}

function messageOf(target: { $case: 'deviceId'; value: string }, payload: Buffer, priority: Priority) {
  return {
    idempotencyKey: '',
    target,
    messageClass: 0,
    name: '',
    payload,
    contentType: '',
    priority,
    ttl: undefined,
    collapseKey: '',
    confirm: 0,
    resultTimeout: undefined,
    receipts: 3, // NONE: bulk
    traceparent: '',
    signature: undefined,
  } as const
}

function at(sorted: number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

function line(name: string, sorted: number[]): void {
  console.log(
    `${name.padEnd(34)} p50 ${at(sorted, 0.5).toFixed(1)} ms   p99 ${at(sorted, 0.99).toFixed(1)} ms   (${sorted.length} messages)`,
  )
}
