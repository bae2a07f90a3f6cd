// What bulk in LOW costs HIGH: latency from publish to the device's handler, first alone, then while LOW is published as fast as the router takes it,
// and whether LOW still moves while HIGH is saturated. One process, embedded store and queue; compare the ratio, not the numbers.
//
//   node bench/priorities.ts [seconds a phase, default 10]
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connectDevice } from '../device-sdk/index.ts'
import { Priority } from '../gen/push/v1/message.ts'
import { PublishServiceDefinition, type PublishStreamRequest } from '../gen/push/v1/publish.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import { systemRandom } from '../service-kit/random.ts'
import { readStandaloneConfig } from '../standalone/config.ts'
import { startStandalone } from '../standalone/standalone.ts'

const phaseMs = Number(process.argv[2] ?? 10) * 1_000
// So many that none comes near the rate of one device, whatever is published.
const deviceCount = 400
const probesPerSecond = 50

const folder = mkdtempSync(join(tmpdir(), 'pushplane-bench-'))
const closers = createClosers(silentLog, systemClock)
closers.add('folder', () => rmSync(folder, { recursive: true, force: true }))

const anywhere = '127.0.0.1:0'
const plane = await startStandalone({
  config: readStandaloneConfig({
    STANDALONE_DATA_FOLDER: join(folder, 'data'),
    STANDALONE_ROUTER_ADDRESS: anywhere,
    STANDALONE_REGISTRY_ADDRESS: anywhere,
    STANDALONE_EDGE_ADDRESS: anywhere,
    STANDALONE_DEVICE_ADDRESS: anywhere,
  }),
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
  closers,
  print: () => undefined,
  onFatal: (cause) => {
    throw cause
  },
})

/** What has been handled, by priority; probes carry the moment they were published. */
const handled = { HIGH: 0, NORMAL: 0, LOW: 0 } as Record<string, number>
let latencies: number[] = []
const opened: Promise<void>[] = []
for (let n = 0; n < deviceCount; n++) {
  const device = connectDevice({
    url: `ws://${plane.deviceAddress}/v1/connect`,
    token: `dev:bench-${n}`,
    onMessage({ priority, data }) {
      handled[priority] = (handled[priority] ?? 0) + 1
      if (isProbe(data)) latencies.push(performance.now() - data.at)
    },
  })
  closers.add('device', () => device.close())
  opened.push(new Promise((resolve) => device.on('welcome', () => resolve())))
}
await Promise.all(opened)

const router = connectGrpc({ addresses: plane.routerAddress, log: silentLog, clock: systemClock })
closers.add('connection', () => router.close())
const publish = router.client(PublishServiceDefinition)

function isProbe(data: unknown): data is { at: number } {
  return typeof data === 'object' && data !== null && 'at' in data && typeof data.at === 'number'
}

/** Publishes probes at an even rate and returns their latencies in ms, sorted. */
async function probe(priority: Priority): Promise<number[]> {
  latencies = []
  const until = performance.now() + phaseMs
  const answers: Promise<unknown>[] = []
  for (let n = 0; performance.now() < until; n++) {
    const payload = Buffer.from(JSON.stringify({ at: performance.now() }))
    const target = { $case: 'deviceId' as const, value: `bench-${n % deviceCount}` }
    answers.push(publish.publish({ message: { target, payload, priority } }, { deadlineMs: 20_000 }))
    await systemClock.sleep(1_000 / probesPerSecond)
  }
  await Promise.all(answers)
  await systemClock.sleep(1_000)
  return latencies.sort((a, b) => a - b)
}

/** Publishes as fast as the router takes it until stopped; returns how many were accepted. */
function saturate(priority: Priority): () => Promise<number> {
  let stopped = false
  let accepted = 0
  async function* items(): AsyncGenerator<PublishStreamRequest> {
    const payload = Buffer.from('{}')
    for (let sequence = 1; !stopped; sequence++) {
      const target = { $case: 'deviceId' as const, value: `bench-${sequence % deviceCount}` }
      yield { sequence, publish: { message: messageOf(target, payload, priority), mode: 1 } }
    }
  }
  const done = (async () => {
    for await (const { result } of publish.publishStream(items())) if (result?.$case === 'accepted') accepted++
  })()
  return async () => {
    stopped = true
    await done
    return accepted
  }
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

const at = (sorted: number[], share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
const line = (name: string, sorted: number[]) =>
  console.log(
    `${name.padEnd(34)} p50 ${at(sorted, 0.5).toFixed(1)} ms   p99 ${at(sorted, 0.99).toFixed(1)} ms   (${sorted.length} messages)`,
  )

await probe(Priority.HIGH) // warm
const alone = await probe(Priority.HIGH)
line('HIGH alone', alone)

const stopLow = saturate(Priority.LOW)
const lowBefore = handled.LOW ?? 0
const crowded = await probe(Priority.HIGH)
const lowHandled = (handled.LOW ?? 0) - lowBefore
line('HIGH while LOW is saturated', crowded)
console.log(
  `${'ratio'.padEnd(34)} p50 ${(at(crowded, 0.5) / at(alone, 0.5)).toFixed(1)}   p99 ${(at(crowded, 0.99) / at(alone, 0.99)).toFixed(1)}`,
)
console.log(`LOW meanwhile: ${Math.round((lowHandled * 1_000) / phaseMs)} handled a second, ${await stopLow()} accepted in all`)

const stopHigh = saturate(Priority.HIGH)
const slow = await probe(Priority.LOW)
line('LOW while HIGH is saturated', slow)
await stopHigh()
await closers.close({ graceMs: 5_000 })
