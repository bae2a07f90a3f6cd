import type { EdgeRecord, EdgeStore } from '../../registry/edge-store.ts'
import { type InboxRow, type InboxRowKey, type InboxStore, inboxReadLimitMax } from '../../registry/inbox-store.ts'
import type { ReceiptRow, ReceiptRowKey, ReceiptStore } from '../../registry/receipt-store.ts'
import { compareRows, dayOf, type SessionRow, type SessionRowKey, type SessionStore } from '../../registry/session-store.ts'

/** A value that ends by itself. */
interface Kept<T> {
  readonly value: T
  readonly endsAt: number
}

/** A device's inbox: its rows, and up to which accept time each message is dead. */
interface Inbox {
  readonly rows: Map<string, Kept<InboxRow>>
  readonly dead: Map<string, Kept<number>>
}

interface Device {
  readonly rows: Map<string, Kept<SessionRow>>
  readonly dead: Map<string, Kept<true>>
}

/** Devices of an account: when each was noted, and up to which moment a note is dead. */
interface Account {
  readonly notes: Map<string, Kept<number>>
  readonly dead: Map<string, Kept<number>>
}

const tombstoneKeptMs = 3 * 3_600_000
const accountDeviceKeptMs = 90 * 86_400_000
const accountTombstoneKeptMs = 10 * 86_400_000

/**
 * The tables of a cluster in memory, with the meaning that Cassandra gives them: rows are written and deleted at a time stamp of their own, end by
 * themselves, and of two writes the later stamp wins. Every step happens at once; what may go wrong on the way is `store-access.ts`'s.
 */
export class ClusterStore {
  readonly #nowMs: () => number
  readonly #devices = new Map<string, Device>()
  readonly #hints = new Map<string, Kept<number>>()
  readonly #accounts = new Map<string, Account>()
  readonly #takeovers = new Map<string, Map<string, Kept<true>>>()
  readonly #edges = new Map<string, Kept<EdgeRecord>>()
  readonly #inboxes = new Map<string, Inbox>()
  readonly #receipts = new Map<string, Map<string, Kept<ReceiptRow>>>()

  /** `nowMs` is the wall clock of the cluster. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs
  }

  readonly sessions: SessionStore = {
    read: async (deviceId, limit) => {
      const rows = [...(this.#devices.get(deviceId)?.rows.values() ?? [])]
        .filter((row) => this.#lives(row))
        .map(({ value }) => value)
        .sort((a, b) => compareRows(b, a))
      return { rows: rows.slice(0, limit), more: rows.length > limit, inboxUntil: this.#living(this.#hints.get(deviceId)) ?? 0 }
    },
    insert: async (row, ttlSeconds) => {
      const { rows, dead } = this.#device(row.deviceId)
      const key = keyOf(row)
      if (this.#living(dead.get(key))) return
      const endsAt = this.#endOf(ttlSeconds)
      const known = rows.get(key)
      rows.set(key, {
        value: { ...row },
        endsAt: known !== undefined && this.#lives(known) ? Math.max(known.endsAt, endsAt) : endsAt,
      })
    },
    delete: async (key) => {
      const { rows, dead } = this.#device(key.deviceId)
      rows.delete(keyOf(key))
      dead.set(keyOf(key), { value: true, endsAt: this.#nowMs() + tombstoneKeptMs })
    },
    writeAccountDevice: async (accountId, deviceId, noted) => {
      const { notes, dead } = this.#account(accountId)
      if (noted <= (this.#living(dead.get(deviceId)) ?? 0) || noted < (this.#living(notes.get(deviceId)) ?? 0)) return
      notes.set(deviceId, { value: noted, endsAt: this.#nowMs() + accountDeviceKeptMs })
    },
    readAccountDevice: async (accountId, deviceId) => this.#living(this.#account(accountId).notes.get(deviceId)),
    deleteAccountDevice: async (accountId, deviceId, noted) => {
      const { notes, dead } = this.#account(accountId)
      if ((notes.get(deviceId)?.value ?? 0) <= noted) notes.delete(deviceId)
      const deadUpTo = Math.max(noted, this.#living(dead.get(deviceId)) ?? 0)
      dead.set(deviceId, { value: deadUpTo, endsAt: this.#nowMs() + accountTombstoneKeptMs })
    },
    writeTakeover: async (deviceId, sessionId, ttlSeconds) => {
      const notes = this.#takeovers.get(deviceId) ?? new Map<string, Kept<true>>()
      this.#takeovers.set(deviceId, notes)
      notes.set(sessionId, { value: true, endsAt: this.#endOf(ttlSeconds) })
    },
    countTakeovers: async (deviceId, limit) => {
      const notes = [...(this.#takeovers.get(deviceId)?.values() ?? [])]
      return Math.min(limit, notes.filter((note) => this.#lives(note)).length)
    },
    readAccountDevices: async (accountId, after, limit) =>
      this.accountDevices(accountId)
        .map(({ deviceId }) => deviceId)
        .filter((deviceId) => deviceId > after)
        .slice(0, limit),
    clockMicros: async () => Math.floor(this.#nowMs() * 1000),
    close: async () => {},
  }

  readonly edges: EdgeStore = {
    writeLease: async (edge, ttlSeconds) => {
      this.#edges.set(edge.edgeId, { value: { ...edge }, endsAt: this.#endOf(ttlSeconds) })
    },
    readAll: async () =>
      [...this.#edges.values()]
        .filter((lease) => this.#lives(lease))
        .map(({ value, endsAt }) => ({ edge: { ...value }, remainingMs: endsAt - this.#nowMs() })),
    clockMicros: async () => Math.floor(this.#nowMs() * 1000),
    close: async () => {},
  }

  readonly inbox: InboxStore = {
    insert: async (deviceId, row, ttlSeconds) => {
      const { rows, dead } = this.#inbox(deviceId)
      const deadUpTo = this.#living(dead.get(row.messageId)) ?? 0
      const known = this.#row(rows, row.messageId)
      if (row.acceptTime <= deadUpTo || (known !== undefined && known.value.acceptTime > row.acceptTime)) return
      const endsAt = this.#endOf(ttlSeconds)
      const same = known?.value.acceptTime === row.acceptTime
      rows.set(row.messageId, { value: { ...row }, endsAt: same ? Math.max(known.endsAt, endsAt) : endsAt })
    },
    writeHint: async (deviceId, inboxUntil, ttlSeconds) => {
      const known = this.#hints.get(deviceId)
      const knownUntil = this.#living(known) ?? 0
      if (inboxUntil < knownUntil) return
      const endsAt = this.#endOf(ttlSeconds)
      const longer = inboxUntil === knownUntil && known !== undefined ? Math.max(known.endsAt, endsAt) : endsAt
      this.#hints.set(deviceId, { value: inboxUntil, endsAt: longer })
    },
    list: async (deviceId) => {
      const { rows, more } = this.#page(deviceId)
      return { rows: rows.map(({ message: _, ...summary }) => summary), more }
    },
    read: async (deviceId) => this.#page(deviceId),
    readMessage: async (deviceId, messageId) => this.#row(this.#inbox(deviceId).rows, messageId)?.value.message,
    delete: async ({ deviceId, messageId, acceptTime }: InboxRowKey) => {
      const { rows, dead } = this.#inbox(deviceId)
      const known = rows.get(messageId)
      if (known !== undefined && known.value.acceptTime <= acceptTime) rows.delete(messageId)
      const deadUpTo = Math.max(acceptTime, this.#living(dead.get(messageId)) ?? 0)
      dead.set(messageId, { value: deadUpTo, endsAt: this.#nowMs() + tombstoneKeptMs })
    },
    close: async () => {},
  }

  readonly receipts: ReceiptStore = {
    insert: async (row, ttlSeconds) => {
      const rows = this.#receipts.get(row.messageId) ?? new Map<string, Kept<ReceiptRow>>()
      this.#receipts.set(row.messageId, rows)
      const key = receiptOrder(row)
      const known = this.#living(rows.get(key))
      const stays =
        known !== undefined &&
        (known.time < row.time || (known.time === row.time && Buffer.compare(known.receipt, row.receipt) >= 0))
      if (!stays) rows.set(key, { value: { ...row }, endsAt: this.#endOf(ttlSeconds) })
    },
    read: async (messageId, after, limit) => {
      const start = after === undefined ? '' : receiptOrder(after)
      return [...(this.#receipts.get(messageId)?.entries() ?? [])]
        .filter(([order, row]) => order > start && this.#lives(row))
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .slice(0, limit)
        .map(([, { value }]) => value)
    },
    close: async () => {},
  }

  /** Devices noted for an account, by id. */
  accountDevices(accountId: string): { deviceId: string; day: number }[] {
    return [...this.#account(accountId).notes.entries()]
      .filter(([, kept]) => this.#lives(kept))
      .map(([deviceId, { value }]) => ({ deviceId, day: dayOf(value) }))
      .sort((a, b) => (a.deviceId < b.deviceId ? -1 : 1))
  }

  #page(deviceId: string) {
    const rows = [...this.#inbox(deviceId).rows.values()].filter((row) => this.#lives(row)).map(({ value }) => value)
    return { rows: rows.slice(0, inboxReadLimitMax), more: rows.length > inboxReadLimitMax }
  }

  #row(rows: Inbox['rows'], messageId: string): Kept<InboxRow> | undefined {
    const row = rows.get(messageId)
    return row !== undefined && this.#lives(row) ? row : undefined
  }

  #account(accountId: string): Account {
    const account = this.#accounts.get(accountId) ?? { notes: new Map(), dead: new Map() }
    this.#accounts.set(accountId, account)
    return account
  }

  #device(deviceId: string): Device {
    const device = this.#devices.get(deviceId) ?? { rows: new Map(), dead: new Map() }
    this.#devices.set(deviceId, device)
    return device
  }

  #inbox(deviceId: string): Inbox {
    const inbox = this.#inboxes.get(deviceId) ?? { rows: new Map(), dead: new Map() }
    this.#inboxes.set(deviceId, inbox)
    return inbox
  }

  #endOf(ttlSeconds: number): number {
    return this.#nowMs() + ttlSeconds * 1000
  }

  #lives({ endsAt }: Kept<unknown>): boolean {
    return endsAt > this.#nowMs()
  }

  #living<T>(kept: Kept<T> | undefined): T | undefined {
    return kept !== undefined && this.#lives(kept) ? kept.value : undefined
  }
}

function keyOf({ epoch, sessionId }: Pick<SessionRowKey, 'epoch' | 'sessionId'>): string {
  return `${epoch}/${sessionId}`
}

function receiptOrder({ deviceId, state }: ReceiptRowKey): string {
  return `${deviceId} ${String(state).padStart(9, '0')}`
}
