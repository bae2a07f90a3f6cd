// What one device that reads nothing costs a thousand others: the time from handing a delivery to the edge until the device has its frame, in turns while all
// read (A) and while one of them has stopped (B) and is sent a flood besides its share. The edge is alone in its process; this one is its router, its registry
// and all devices. Compare the ratio, not the numbers. Exits with 1 when a message of the others was lost, or more waited than one outbox may hold.
//
// With `both` as the third argument the one is sent the flood in A too, and reads it: so what the flood costs is told from what stopping costs.
//
//   npm run bench:slow-reader -- [seconds a phase, default 10] [devices, default 1000] [both]
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { readEdgeConfig } from '../edge/index.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { silentLog } from '../service-kit/log.ts'
import { startLoneEdge } from './slow-reader/lone-edge.ts'
import { type OutcomeCounts, openTraffic, type PhaseResult } from './slow-reader/traffic.ts'

const phaseMs = Number(process.argv[2] ?? 10) * 1_000
const deviceCount = Number(process.argv[3] ?? 1_000)
const floodInBoth = process.argv[4] === 'both'
// With fewer devices each would be sent more than its rate.
if (!(phaseMs >= 1_000 && deviceCount >= 10)) throw new Error('expected at least 1 second a phase, and at least 10 devices')

const toAll = { perSecond: 500, bytes: 1_024 }
/** Above the rate of one device, and far more than its outbox holds. */
const flood = { perSecond: 200, bytes: 16 * 1_024 }
/** The edge sets its gauges once a second. */
const gaugeMs = 1_200
const recoverMs = 10_000

const closers = createClosers(silentLog, systemClock)
try {
  await run()
} finally {
  await closers.close({ graceMs: 10_000 })
}

async function run(): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'pushplane-slow-reader-'))
  closers.add('folder', () => rmSync(folder, { recursive: true, force: true }))
  const edge = await startLoneEdge(folder, {
    // A device that reads nothing answers no ping and makes no progress, and would be closed. Here it shall stay.
    EDGE_PING_INTERVAL_MS: '600000',
    EDGE_STUCK_MS: '600000',
    // As docs/operations.md has it for busy edges. With more room V8 lets so much garbage lie that nothing else shows.
    NODE_OPTIONS: '--max-semi-space-size=4',
  })
  closers.add('edge', edge.close)
  const traffic = await openTraffic(edge, deviceCount)
  closers.add('traffic', traffic.close)

  let outboxBytesMost = 0
  const look = async () => {
    const metric = await edge.metrics()
    outboxBytesMost = Math.max(outboxBytesMost, metric('push_edge_outbox_bytes'))
    return metric
  }

  /** One phase, and a line about it. */
  async function phase(name: string, stalled: boolean): Promise<PhaseResult> {
    if (stalled) traffic.theOne.stall()
    const cpuBefore = (await look())('process_cpu_seconds_total')
    const begun = performance.now()
    const result = await traffic.run(phaseMs, toAll, stalled || floodInBoth ? flood : undefined)
    const seconds = (performance.now() - begun) / 1_000
    const cpu = (await look())('process_cpu_seconds_total') - cpuBefore
    await delay(gaugeMs)
    const metric = await look()
    row(
      name,
      ms(at(result.latencies, 0.5)),
      ms(at(result.latencies, 0.99)),
      String(result.latencies.length),
      String(result.lost),
      kib(metric('push_edge_outbox_bytes')),
      mib(metric('nodejs_heap_size_used_bytes')),
      mib(metric('process_resident_memory_bytes')),
      `${Math.round((cpu / seconds) * 100)} %`,
    )
    if (result.lost > 0) console.error(`${result.lost} messages of the others were lost; refused: ${told(result.refused)}`)
    return result
  }

  /** The one reads again; returns when nothing waits for it. */
  async function recover(): Promise<void> {
    traffic.theOne.resume()
    const giveUpAt = performance.now() + recoverMs
    do await delay(gaugeMs)
    while ((await look())('push_edge_outbox_bytes') > 0 && performance.now() < giveUpAt)
  }

  console.log(
    `${deviceCount} devices, ${toAll.perSecond} messages a second of ${toAll.bytes} bytes to all in turn; in B one has ` +
      `stopped reading; in ${floodInBoth ? 'both' : 'B'} it is sent ${flood.perSecond} a second of ${flood.bytes} bytes besides`,
  )
  row('the others', 'p50', 'p99', 'messages', 'lost', 'outboxes', 'heap used', 'resident', 'CPU')
  await phase('warming up', false)
  const reading: PhaseResult[] = []
  const stalling: PhaseResult[] = []
  for (const round of [1, 2]) {
    reading.push(await phase(`A${round} all read`, false))
    stalling.push(await phase(`B${round} one stalled`, true))
    await recover()
  }

  const a = sortedOf(reading)
  const b = sortedOf(stalling)
  for (const [name, share] of [
    ['p50', 0.5],
    ['p99', 0.99],
  ] as const) {
    console.log(`${name}: A ${ms(at(a, share))}, B ${ms(at(b, share))}, B/A ${(at(b, share) / at(a, share)).toFixed(2)}`)
  }
  for (const [index, { ofTheOne }] of stalling.entries()) console.log(`the stalled one in B${index + 1}: ${told(ofTheOne)}`)
  const limit = readEdgeConfig({}).outboxBytes
  console.log(`outboxes held at most ${kib(outboxBytesMost)}; one may hold ${kib(limit)}`)
  const lost = [...reading, ...stalling].some((result) => result.lost > 0)
  if (lost || outboxBytesMost > limit) process.exitCode = 1
}

function row(name: string, ...cells: string[]): void {
  console.log(`${name.padEnd(15)}${cells.map((cell) => cell.padStart(11)).join('')}`)
}

function told(counts: OutcomeCounts): string {
  return Object.entries(counts)
    .map(([name, count]) => `${count} ${name}`)
    .join(', ')
}

function sortedOf(results: readonly PhaseResult[]): number[] {
  return results.flatMap(({ latencies }) => latencies).sort((a, b) => a - b)
}

function at(sorted: readonly number[], share: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN
}

function ms(value: number): string {
  return `${value.toFixed(2)} ms`
}

function kib(bytes: number): string {
  return `${(bytes / 2 ** 10).toFixed(0)} KiB`
}

function mib(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`
}
