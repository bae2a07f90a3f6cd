// Reconnects a second after an edge is lost and during a rolling deploy, for lifetimes without jitter, with 10 % and with 50 %, with slots and without.
// A simulation on its own time: the edge's drain and the device SDK's back-off are the real ones. Prints a table and draws docs/reconnects.svg.
//
//   npm run bench:reconnects
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { seededRandom } from '../service-kit/random.ts'
import {
  drainBounds,
  type FleetOptions,
  registerRatePerSecond,
  restartMs,
  runFleet,
  slotMaxMs,
} from './reconnects/fleet-model.ts'
import { drawReconnects, type Panel } from './reconnects/reconnect-chart.ts'

const deviceCount = 100_000
const edgeCount = 10
const minuteMs = 60_000
const lifetimeMs = 30 * minuteMs
const eventAtMs = 10 * minuteMs
const endMs = 130 * minuteMs
/** When what comes back at once has come back: after that it is the echo of the event that shows. */
const echoFromMs = { 'edge lost': 5 * minuteMs, 'rolling deploy': 20 * minuteMs } as const
const picture = fileURLToPath(new URL('../docs/reconnects.svg', import.meta.url))

const withSlots = '#1764ab'
const withoutSlots = '#d9601a'

const run = (event: FleetOptions['event'], jitter: number, slots: boolean) =>
  runFleet({
    deviceCount,
    edgeCount,
    lifetimeMs,
    lifetimeJitterMs: jitter * lifetimeMs,
    slots,
    event,
    eventAtMs,
    endMs,
    random: seededRandom(1),
  })

const highest = (perSecond: Uint32Array, fromMs: number) => Math.max(...perSecond.subarray(Math.floor(fromMs / 1_000)))
const cell = (words: string | number) => String(words).padStart(11)

console.log(
  `${'event'.padEnd(15)}${['jitter', 'slots', 'steady/s', 'highest/s', 'times', 'echo/s', 'times', 'refused'].map(cell).join('')}`,
)
const panels: Panel[] = []
for (const event of ['edge lost', 'rolling deploy'] as const) {
  for (const jitter of [0, 0.1, 0.5]) {
    const steadyPerSecond = (deviceCount * 1_000) / (lifetimeMs * (1 - jitter / 2))
    const lines = [false, true].map((slots) => {
      const { reconnectsBySecond, refused } = run(event, jitter, slots)
      const peak = highest(reconnectsBySecond, eventAtMs)
      const echo = highest(reconnectsBySecond, eventAtMs + echoFromMs[event])
      const times = (perSecond: number) => (perSecond / steadyPerSecond).toFixed(1)
      const share = `${jitter * 100} %`
      const cells = [share, slots ? 'yes' : 'no', Math.round(steadyPerSecond), peak, times(peak), echo, times(echo), refused]
      console.log(`${event.padEnd(15)}${cells.map(cell).join('')}`)
      return { color: slots ? withSlots : withoutSlots, perSecond: reconnectsBySecond }
    })
    panels.push({
      title: `${event === 'edge lost' ? 'One of ten edges is lost' : 'Ten edges are restarted in turn'}, J = ${jitter * 100} %`,
      lines,
      steadyPerSecond,
      eventAtSecond: eventAtMs / 1_000,
    })
  }
}

writeFileSync(
  picture,
  drawReconnects({
    title: 'Reconnects a second',
    legend: [
      { color: withoutSlots, text: 'all at once' },
      { color: withSlots, text: 'in slots' },
      { color: '#888', text: 'dashed: the steady rate' },
    ],
    columns: 3,
    panels,
    maxPerSecond: 10_000,
    notes: [
      `${deviceCount.toLocaleString('en')} devices on ${edgeCount} edges, lifetimes of ${lifetimeMs / minuteMs} min less a jitter J; an edge registers ${registerRatePerSecond} devices a second. Each place shows its highest second.`,
      `In slots: within ${slotMaxMs / 1_000} s of the end of a lifetime; a drain asks the devices of an edge one after the other over ${drainBounds.overMs / 1_000} s, and the next edge follows ${restartMs / 1_000} s after it.`,
      'Who loses its edge comes back by the back-off of the device SDK: slots do not help against that, jitter keeps it from coming again each lifetime.',
    ],
  }),
)
console.log(`drawn: ${picture}`)
