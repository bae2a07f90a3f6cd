import type {
  CountRequest,
  CountResponse,
  InboxEntry,
  InboxEviction,
  ReadRequest,
  ReadResponse,
  RemoveRequest,
  RemoveResponse,
  StoreRequest,
  StoreResponse,
  StoreResult,
} from '../gen/push/internal/v1/inbox.ts'
import type { QueuedMessage } from '../gen/push/internal/v1/queue.ts'
import type { Clock } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import type { Random } from '../service-kit/random.ts'
import { allOf, type CallScope, createItemErrors, eachOf } from './batches.ts'
import { createInboxAllowances } from './inbox-allowances.ts'
import { collapse, compareDelivery, inboxEntryOf, inboxRowOf, withoutPayload } from './inbox-entry.ts'
import { type InboxBounds, planRoom, type Victim } from './inbox-room.ts'
import type { InboxPage, InboxRow, InboxStore, InboxSummary } from './inbox-store.ts'
import { clockSkewMaxMs } from './readiness.ts'
import { checkInboxDevice, checkRemove, checkStore } from './request-checks.ts'
import type { Work, WorkLimits } from './service-limits.ts'

/**
 * Rows and hints outlive their messages by this much, and every read leaves out what has expired: a registry whose clock is
 * ahead of the others', as far as one may be, does not end messages early for all of them. One second more, as the store
 * counts whole ones.
 */
const ttlSlackSeconds = clockSkewMaxMs / 1000 + 1
/** Most bytes of messages in one answer, so that it stays below the 4 MiB that its caller takes. */
export const readBytesMax = 3 * 1024 * 1024

/** What the inbox is made with. */
export interface InboxOptions {
  readonly store: InboxStore
  readonly limits: Pick<Record<Work, WorkLimits>, 'inbox' | 'counts'>
  /** Soft bounds of one device's inbox. */
  readonly bounds: InboxBounds
  /** Devices whose room is remembered between two counts. */
  readonly countedDevicesMax: number
  readonly clock: Clock
  readonly random: Random
  readonly log: Log
  readonly metrics: Metrics
}

/** The calls of `InboxService`. */
export interface Inbox {
  store(request: StoreRequest, scope: CallScope): Promise<StoreResponse>
  read(request: ReadRequest, scope: CallScope): Promise<ReadResponse>
  remove(request: RemoveRequest, scope: CallScope): Promise<RemoveResponse>
  count(request: CountRequest, scope: CallScope): Promise<CountResponse>
}

/**
 * Keeps messages for devices that are away. The rules, each of which has its test in inbox.suite.ts:
 *
 * - The row is written before the hint: who has seen the hint finds the message.
 * - Rows are removed one by one, each at its own accept time: what was stored meanwhile, or was accepted earlier and is
 *   stored later, stays.
 * - Versions of a collapse key are rows of their own, and the newest by accept time is what counts.
 * - What has to go for a newcomer goes after the newcomer is safe: nothing is lost for a store that fails.
 */
export function createInbox(options: InboxOptions): Inbox {
  const { store, limits, bounds, clock, log, metrics } = options
  const allowances = createInboxAllowances({ ...options, devicesMax: options.countedDevicesMax })
  const itemErrorOf = createItemErrors(options)
  const stores = metrics.counter('push_registry_inbox_stores_total', 'Messages to store, by what became of them', ['result'])
  const evicted = metrics.counter('push_registry_inbox_evictions_total', 'Entries that had to go for a newcomer', ['why'])
  const removed = metrics.counter('push_registry_inbox_removed_total', 'Entries removed by key')
  const overfull = metrics.counter('push_registry_inbox_overfull_total', 'Reads of inboxes with more than is read at most')
  const undecodable = metrics.counter('push_registry_inbox_undecodable_total', 'Entries left out because they are no messages')

  const storeOne = async ({ deviceId, message }: WholeEntry, scope: CallScope): Promise<StoreResult> => {
    const step = <T>(run: () => Promise<T>) => limits.inbox.step(scope.signal, run)
    const stored = (evictions: InboxEviction[]): StoreResult => ({ result: { $case: 'stored', value: {} }, evictions })
    const row = inboxRowOf(message)
    const ttlSeconds = () => Math.max(1, Math.ceil((row.expireTime - clock.nowMicros()) / 1_000_000) + ttlSlackSeconds)

    // Nobody would ever be handed it.
    if (row.expireTime <= clock.nowMicros()) {
      stores.inc({ result: 'expired' })
      return stored([])
    }
    let victims: readonly Victim[] = []
    if (!allowances.take(deviceId, row.size)) {
      const waiting = notExpired(await step(() => store.list(deviceId)))
      const plan = planRoom(waiting, row, bounds)
      allowances.counted(deviceId, plan.left)
      if (!plan.fits) {
        stores.inc({ result: 'full' })
        return { result: { $case: 'full', value: {} }, evictions: [] }
      }
      victims = plan.victims
    }
    await step(() => store.insert(deviceId, row, ttlSeconds()))
    await step(() => store.writeHint(deviceId, row.expireTime, ttlSeconds()))
    stores.inc({ result: 'stored' })

    const evictions: InboxEviction[] = []
    for (const victim of victims) evictions.push(...(await evict(deviceId, victim, scope)))
    return stored(evictions)
  }

  /** Makes one entry go, and says what it was; nothing when it has gone already, or could not be read. */
  const evict = async (deviceId: string, { summary, replaced }: Victim, scope: CallScope): Promise<InboxEviction[]> => {
    const { messageId, acceptTime } = summary
    const step = <T>(run: () => Promise<T>) => limits.inbox.step(scope.signal, run)
    let entry: InboxEntry
    try {
      const bytes = await step(() => store.readMessage(deviceId, messageId))
      if (bytes === undefined) return []
      entry = withoutPayload(inboxEntryOf(deviceId, bytes))
    } catch (error) {
      // The newcomer is safe, and the bound is soft: a later store finds the entry again.
      itemErrorOf('inbox', error, scope)
      return []
    }
    try {
      await step(() => store.delete({ deviceId, messageId, acceptTime }))
    } catch (error) {
      // Unknown: it is told all the same, as one that went untold would have no end. Should it still be there and be
      // delivered, the device's answer outranks this end.
      itemErrorOf('inbox', error, scope)
    }
    evicted.inc({ why: replaced ? 'replaced' : 'full' })
    return [{ entry, replaced }]
  }

  const notExpired = <T extends InboxSummary>({ rows, more }: InboxPage<T>): T[] => {
    if (more) overfull.inc()
    const now = clock.nowMicros()
    return rows.filter(({ expireTime }) => expireTime > now)
  }

  /** The entries, without those that nobody can read. */
  const entriesOf = (deviceId: string, rows: readonly InboxRow[]): InboxEntry[] =>
    rows.flatMap(({ messageId, message }) => {
      try {
        return [inboxEntryOf(deviceId, message)]
      } catch (cause) {
        undecodable.inc()
        log.error('inbox entry is no message; left out', { device_id: deviceId, message_id: messageId, cause })
        return []
      }
    })

  return {
    async store(request, scope) {
      const entries = checkStore(request, clock.nowMicros())
      // Entries of one device take turns, so that each is judged with those before it in place.
      const byDevice = Map.groupBy(entries.keys(), (at) => entries[at]?.deviceId)
      const results: StoreResult[] = []
      await limits.inbox.admit(entries.length, () =>
        eachOf([...byDevice.values()], async (places) => {
          for (const at of places) {
            try {
              results[at] = await storeOne(entries[at] as WholeEntry, scope)
            } catch (error) {
              const value = itemErrorOf('inbox', error, scope)
              stores.inc({ result: 'error' })
              results[at] = { result: { $case: 'error', value }, evictions: [] }
            }
          }
        }),
      )
      return { results }
    },

    async read(request, scope) {
      checkInboxDevice(request)
      const { deviceId } = request
      const page = await limits.inbox.admit(1, () => limits.inbox.step(scope.signal, () => store.read(deviceId)))
      const { newest, replaced } = collapse(notExpired(page))
      const first = withinBytes(newest.sort(compareDelivery), readBytesMax)
      if (first.length < newest.length) overfull.inc()
      return { entries: entriesOf(deviceId, first), replaced: entriesOf(deviceId, replaced).map(withoutPayload) }
    },

    async remove(request, scope) {
      checkRemove(request)
      const { entries } = request
      await limits.inbox.admit(entries.length, () =>
        allOf(entries, scope, async (key) => {
          await limits.inbox.step(scope.signal, () => store.delete(key))
          removed.inc()
        }),
      )
      return {}
    },

    async count(request, scope) {
      checkInboxDevice(request)
      const { deviceId } = request
      const page = await limits.counts.admit(1, () => limits.counts.step(scope.signal, () => store.list(deviceId)))
      return { entryCount: collapse(notExpired(page)).newest.length }
    },
  }
}

/** An entry that has passed the check. */
type WholeEntry = InboxEntry & { readonly message: QueuedMessage }

/** The first rows that are not longer than so much together, but at least one. */
function withinBytes<T extends InboxSummary>(rows: readonly T[], bytesMax: number): T[] {
  let bytes = 0
  return rows.filter(({ size }, at) => {
    bytes += size
    return at === 0 || bytes <= bytesMax
  })
}
