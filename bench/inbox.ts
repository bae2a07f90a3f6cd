// What many stores to one device cost: every entry that was stored and removed leaves a tombstone in Cassandra for three hours, and each read of the
// device's inbox steps over them. Prints how long reading the inbox takes, storing one message more, and a whole flush: from the device's session to its
// handler's last of a hundred messages. A plane of separate processes on a real Kafka and Cassandra; compare the lines, not the numbers.
//
//   node bench/inbox.ts [stores before, in order; default 0 1000 10000 50000]
import process from 'node:process'
import { Client } from 'cassandra-driver'
import { InboxServiceDefinition } from '../gen/push/internal/v1/inbox.ts'
import { MessageState } from '../gen/push/v1/message.ts'
import { PublishMode, PublishServiceDefinition } from '../gen/push/v1/publish.ts'
import { systemClock } from '../service-kit/clock.ts'
import { createClosers } from '../service-kit/closers.ts'
import { connectGrpc } from '../service-kit/grpc-client.ts'
import { uuidV7 } from '../service-kit/ids.ts'
import { silentLog } from '../service-kit/log.ts'
import { systemRandom } from '../service-kit/random.ts'
import { startRealPlane } from './real-plane.ts'

const storeCounts = process.argv.slice(2).map(Number)
if (storeCounts.length === 0) storeCounts.push(0, 1_000, 10_000, 50_000)
const messageCount = 100
const writesAtOnce = 32
const deadlineMs = 60_000
/** A flush that takes longer has not come to its end. */
const flushTimeoutMs = 120_000

const closers = createClosers(silentLog, systemClock)
try {
  await run()
} finally {
  await closers.close({ graceMs: 10_000 })
}

async function run(): Promise<void> {
  const { plane, servers, connect, close } = await startRealPlane()
  closers.add('plane', close)
  const { contactPoints, port, localDataCenter } = servers.cassandra
  const cassandra = new Client({
    contactPoints,
    localDataCenter,
    protocolOptions: { port },
    encoding: { useBigIntAsLong: true },
  })
  closers.add('cassandra', () => cassandra.shutdown())
  const connections = [plane.registries[0]?.fact('address') ?? '', plane.routerAddresses[0] ?? ''].map((addresses) =>
    connectGrpc({ addresses, log: silentLog, clock: systemClock }),
  )
  for (const connection of connections) closers.add('connection', () => connection.close())
  const [registry, router] = connections
  if (registry === undefined || router === undefined) throw new Error('no services')
  const inbox = registry.client(InboxServiceDefinition)
  const publish = router.client(PublishServiceDefinition)

  /** Stores and removes as the registry does, only faster: with the same statements, past its bounds, many at once. */
  async function storeAndRemove(deviceId: string, count: number): Promise<void> {
    const table = `${plane.keyspace}.inbox`
    const insert = `INSERT INTO ${table} (device_id, message_id, message, priority, recovery, accept_time, expire_time, collapse_key, size)
                    VALUES (?, ?, ?, 2, false, ?, ?, '', 300) USING TIMESTAMP ? AND TTL 3600`
    const remove = `DELETE FROM ${table} USING TIMESTAMP ? WHERE device_id = ? AND message_id = ?`
    const numbers = Array.from({ length: count }, (_, index) => index).values()
    const begin = systemClock.nowMicros() - count
    const work = async () => {
      for (const index of numbers) {
        const acceptTime = begin + index
        const at = BigInt(acceptTime)
        const messageId = uuidV7(systemClock, systemRandom)
        const expireTime = at + 3_600_000_000n
        await cassandra.execute(insert, [deviceId, messageId, Buffer.alloc(300), at, expireTime, at], execution)
        await cassandra.execute(remove, [at, deviceId, messageId], execution)
      }
    }
    await Promise.all(Array.from({ length: writesAtOnce }, work))
  }
  const execution = { prepare: true, isIdempotent: true }

  /** Publishes to a device that is away, and returns when the message lies in its inbox. A call that is told to come again does so, as the same message. */
  async function store(deviceId: string, number: number): Promise<void> {
    const target = { $case: 'deviceId' as const, value: deviceId }
    const payload = Buffer.from(JSON.stringify({ text: 'x'.repeat(200) }))
    const message = { target, payload, idempotencyKey: `${deviceId}-${number}` }
    const { state } = await publish.publish({ message, mode: PublishMode.DIRECT }, { deadlineMs, retries: 10 })
    if (state !== MessageState.STORED) throw new Error(`a message for ${deviceId} was not stored, but ${stateName(state)}`)
  }

  console.log('stores before   reading the inbox   storing one more (p50, max)   flush of 100 messages')
  for (const [number, count] of storeCounts.entries()) {
    const deviceId = `bench-${number}`
    await storeAndRemove(deviceId, count)
    const storing: number[] = []
    for (let n = 0; n < messageCount; n++) storing.push(await timed(() => store(deviceId, n)))
    storing.sort((a, b) => a - b)
    const reading: number[] = []
    for (let n = 0; n < 5; n++) {
      // A read that Cassandra gives up is told as such.
      reading.push(await timed(() => inbox.read({ deviceId }, { deadlineMs })).catch(() => Number.POSITIVE_INFINITY))
    }
    reading.sort((a, b) => a - b)
    let handled = 0
    const all = Promise.withResolvers<void>()
    const flushing = await timed(async () => {
      await connect(deviceId, () => {
        if (++handled === messageCount) all.resolve()
      })
      await Promise.race([all.promise, systemClock.sleep(flushTimeoutMs)])
    })
    const ms = (value = Number.NaN) => (Number.isFinite(value) ? `${Math.round(value)} ms` : 'given up')
    console.log(
      [
        String(count).padStart(13),
        ms(reading[2]).padStart(17),
        `${ms(storing[messageCount / 2])}, ${ms(storing.at(-1))}`.padStart(27),
        ms(handled < messageCount ? Number.NaN : flushing).padStart(21),
      ].join('   '),
    )
  }
}

function stateName(state: number): string {
  return Object.entries(MessageState).find(([, value]) => value === state)?.[0] ?? String(state)
}

async function timed(act: () => Promise<unknown>): Promise<number> {
  const begun = performance.now()
  await act()
  return performance.now() - begun
}
