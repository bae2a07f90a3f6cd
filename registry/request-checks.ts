import type { Duration } from '../gen/google/protobuf/duration.ts'
import type { CountRequest, InboxEntry, ReadRequest, RemoveRequest, StoreRequest } from '../gen/push/internal/v1/inbox.ts'
import type { QueuedMessage } from '../gen/push/internal/v1/queue.ts'
import type { GetRequest, RecordRequest } from '../gen/push/internal/v1/receipts.ts'
import type {
  ForgetAccountDevicesRequest,
  ListEdgesRequest,
  LookupAccountRequest,
  LookupRequest,
  RegisterRequest,
  RenewEdgeRequest,
  UnregisterRequest,
} from '../gen/push/internal/v1/registry.ts'
import { MessageState } from '../gen/push/v1/message.ts'
import { type FieldViolation, PushError } from '../service-kit/errors.ts'
import { PUSH_ID_PATTERN } from '../service-kit/ids.ts'
import { parseHostPort } from '../service-kit/listen-address.ts'
import { msFromDuration } from '../service-kit/time.ts'

/** Most items in one batch. */
export const batchItemsMax = 1000
/** Bounds of a session row's life, in milliseconds. */
export const rowTtlMinMs = 1000
export const rowTtlMaxMs = 30 * 86_400_000
/** Bounds of an edge's lease, in milliseconds. */
export const leaseTtlMinMs = 1000
export const leaseTtlMaxMs = 300_000
/** Most edges or devices on one page, and how many when the caller does not say. */
export const pageMax = 1000
export const pageDefault = 100
/** Longest payload and result, in bytes. */
export const payloadMaxBytes = 65_536
export const resultMaxBytes = 49_152
/** How far ahead a message may expire, in ms: the longest time to live, and a day for clocks and queues. */
export const expiryAheadMaxMs = 31 * 86_400_000
/** How far ahead a result may be due, in ms: the longest wait for it after that. */
export const resultAheadMaxMs = expiryAheadMaxMs + 86_400_000

/** A caller who sends nonsense is told about the first few fields of it. */
const violationsMax = 16

const sessionIdPattern = /^[A-Za-z0-9_-]{22}$/
const edgeIdPattern = /^[a-z0-9-]{1,63}-[a-z0-9]{8}$/
const edgeNamePattern = /^[a-z0-9-]{1,63}$/
const zonePattern = /^[A-Za-z0-9._-]{0,63}$/
const protocolPattern = /^[A-Za-z0-9._-]{1,64}$/

/** Every field of the request that is wrong, as one INVALID_REQUEST. Each check* below throws it and changes nothing. */
class Violations {
  readonly #found: FieldViolation[] = []

  demand(holds: boolean, field: string, description: string): void {
    if (!holds && this.#found.length < violationsMax) this.#found.push({ field, description })
  }

  matches(value: string, pattern: RegExp, field: string, form: string): void {
    this.demand(pattern.test(value), field, `must be ${form}`)
  }

  deviceId(value: string, field: string): void {
    this.matches(value, PUSH_ID_PATTERN, field, '1 to 128 characters of [A-Za-z0-9._:~-]')
  }

  sessionId(value: string, field: string): void {
    this.matches(value, sessionIdPattern, field, '22 characters of [A-Za-z0-9_-]')
  }

  edgeId(value: string, field: string): void {
    this.matches(value, edgeIdPattern, field, 'a name of [a-z0-9-], a dash and 8 characters of [a-z0-9]')
  }

  hostPort(value: string, field: string): void {
    this.demand(value.length <= 255 && (parseHostPort(value)?.port ?? 0) > 0, field, 'must be host:port')
  }

  micros(value: number, field: string): void {
    this.demand(Number.isSafeInteger(value) && value >= 0, field, 'must be 0 or more, in µs')
  }

  /** A moment that is stamped on a row, not later than so much after now. */
  moment(value: number, [nowMicros, aheadMaxMs]: readonly [number, number], field: string): void {
    const latest = nowMicros + aheadMaxMs * 1000
    const form = `must be in µs since 1970, at most ${aheadMaxMs / 86_400_000} days ahead`
    this.demand(Number.isSafeInteger(value) && value >= 1 && value <= latest, field, form)
  }

  messageId(value: string, field: string): void {
    this.matches(value, PUSH_ID_PATTERN, field, '1 to 128 characters of [A-Za-z0-9._:~-]')
  }

  count(value: number, field: string): void {
    this.demand(Number.isInteger(value) && value >= 0, field, 'must be 0 or more')
  }

  duration(value: Duration | undefined, [minMs, maxMs]: readonly [number, number], field: string): void {
    const ms = value === undefined ? Number.NaN : durationMs(value)
    this.demand(ms >= minMs && ms <= maxMs, field, `must be ${minMs / 1000} s to ${maxMs / 1000} s`)
  }

  /** Returns the page's size and the id after which it begins. */
  page(pageSize: number, pageToken: string, idPattern: RegExp): { size: number; after: string } {
    this.demand(pageSize >= 0 && pageSize <= pageMax, 'page_size', `must be 1 to ${pageMax}, or 0 for ${pageDefault}`)
    const after = Buffer.from(pageToken, 'base64url').toString('latin1')
    this.demand(pageToken === '' || idPattern.test(after), 'page_token', 'must be the next_page_token of an answer')
    return { size: pageSize === 0 ? pageDefault : pageSize, after }
  }

  /** Says whether the batch is small enough to be looked at further. */
  batch(items: readonly unknown[], field: string): void {
    if (items.length <= batchItemsMax) return
    this.demand(false, field, `has ${items.length} items; at most ${batchItemsMax} are taken`)
    this.throwIfAny()
  }

  throwIfAny(): void {
    const [first] = this.#found
    if (first === undefined) return
    throw new PushError('INVALID_REQUEST', `${first.field} ${first.description}`, {}, { violations: this.#found })
  }
}

export function checkRegister({ edgeId, edgeAddress, sessions }: RegisterRequest): void {
  const bad = new Violations()
  bad.edgeId(edgeId, 'edge_id')
  bad.hostPort(edgeAddress, 'edge_address')
  bad.batch(sessions, 'sessions')
  const devices = new Set<string>()
  sessions.forEach((session, at) => {
    const field = `sessions[${at}]`
    bad.deviceId(session.deviceId, `${field}.device_id`)
    bad.demand(!devices.has(session.deviceId), `${field}.device_id`, 'names a device that is in this batch already')
    devices.add(session.deviceId)
    bad.sessionId(session.sessionId, `${field}.session_id`)
    if (session.accountId !== '') {
      bad.matches(session.accountId, PUSH_ID_PATTERN, `${field}.account_id`, 'empty or 1 to 128 characters of [A-Za-z0-9._:~-]')
    }
    bad.matches(session.protocol, protocolPattern, `${field}.protocol`, '1 to 64 characters of [A-Za-z0-9._-]')
    bad.micros(session.connectedTime, `${field}.connected_time`)
    bad.micros(session.lastEpoch, `${field}.last_epoch`)
    bad.duration(session.rowTtl, [rowTtlMinMs, rowTtlMaxMs], `${field}.row_ttl`)
  })
  bad.throwIfAny()
}

export function checkUnregister({ sessions }: UnregisterRequest): void {
  const bad = new Violations()
  bad.batch(sessions, 'sessions')
  sessions.forEach((session, at) => {
    bad.deviceId(session.deviceId, `sessions[${at}].device_id`)
    bad.sessionId(session.sessionId, `sessions[${at}].session_id`)
    bad.micros(session.epoch, `sessions[${at}].epoch`)
  })
  bad.throwIfAny()
}

export function checkForgetAccountDevices({ accountDevices }: ForgetAccountDevicesRequest): void {
  const bad = new Violations()
  bad.batch(accountDevices, 'account_devices')
  accountDevices.forEach(({ accountId, deviceId }, at) => {
    bad.matches(accountId, PUSH_ID_PATTERN, `account_devices[${at}].account_id`, '1 to 128 characters of [A-Za-z0-9._:~-]')
    bad.deviceId(deviceId, `account_devices[${at}].device_id`)
  })
  bad.throwIfAny()
}

export function checkLookup({ deviceIds }: LookupRequest): void {
  const bad = new Violations()
  bad.batch(deviceIds, 'device_ids')
  const devices = new Set<string>()
  deviceIds.forEach((deviceId, at) => {
    bad.deviceId(deviceId, `device_ids[${at}]`)
    bad.demand(!devices.has(deviceId), `device_ids[${at}]`, 'names a device that is in this batch already')
    devices.add(deviceId)
  })
  bad.throwIfAny()
}

/** Returns the entries, each of which has its message. */
export function checkStore({ entries }: StoreRequest, nowMicros: number): (InboxEntry & { message: QueuedMessage })[] {
  const bad = new Violations()
  bad.batch(entries, 'entries')
  const whole = entries.flatMap(({ deviceId, message }, at) => {
    const field = `entries[${at}]`
    bad.deviceId(deviceId, `${field}.device_id`)
    bad.demand(message?.message !== undefined, `${field}.message`, 'is missing')
    if (message === undefined) return []
    bad.messageId(message.messageId, `${field}.message.message_id`)
    bad.moment(message.acceptTime, [nowMicros, expiryAheadMaxMs], `${field}.message.accept_time`)
    bad.moment(message.expireTime, [nowMicros, expiryAheadMaxMs], `${field}.message.expire_time`)
    const bytes = message.message?.payload.length ?? 0
    bad.demand(bytes <= payloadMaxBytes, `${field}.message.message.payload`, `must be at most ${payloadMaxBytes} bytes`)
    return [{ deviceId, message }]
  })
  bad.throwIfAny()
  return whole
}

export function checkRemove({ entries }: RemoveRequest): void {
  const bad = new Violations()
  bad.batch(entries, 'entries')
  entries.forEach(({ deviceId, messageId, acceptTime }, at) => {
    bad.deviceId(deviceId, `entries[${at}].device_id`)
    bad.messageId(messageId, `entries[${at}].message_id`)
    bad.demand(Number.isSafeInteger(acceptTime) && acceptTime >= 1, `entries[${at}].accept_time`, 'must be in µs since 1970')
  })
  bad.throwIfAny()
}

/** Checks what reads or counts the inbox of one device. */
export function checkInboxDevice({ deviceId }: ReadRequest | CountRequest): void {
  const bad = new Violations()
  bad.deviceId(deviceId, 'device_id')
  bad.throwIfAny()
}

const accountStates: readonly number[] = [MessageState.ACCEPTED, MessageState.DROPPED]

export function checkRecord({ receipts }: RecordRequest, nowMicros: number): void {
  const bad = new Violations()
  bad.batch(receipts, 'receipts')
  const states: readonly number[] = Object.values(MessageState)
  receipts.forEach((receipt, at) => {
    const field = `receipts[${at}]`
    const state = receipt.outcome?.state ?? MessageState.UNSPECIFIED
    bad.messageId(receipt.messageId, `${field}.message_id`)
    // The row of an account as a whole is of no device.
    if (receipt.deviceId !== '' || !accountStates.includes(state)) bad.deviceId(receipt.deviceId, `${field}.device_id`)
    bad.count(receipt.deviceCount, `${field}.device_count`)
    bad.demand(state !== MessageState.UNSPECIFIED && states.includes(state), `${field}.outcome.state`, 'must be a known state')
    bad.moment(receipt.time, [nowMicros, expiryAheadMaxMs], `${field}.time`)
    bad.moment(receipt.expireTime, [nowMicros, expiryAheadMaxMs], `${field}.expire_time`)
    if (receipt.resultDeadline !== 0) {
      bad.moment(receipt.resultDeadline, [nowMicros, resultAheadMaxMs], `${field}.result_deadline`)
    }
    bad.demand(receipt.result.length <= resultMaxBytes, `${field}.result`, `must be at most ${resultMaxBytes} bytes`)
  })
  bad.throwIfAny()
}

export function checkGet({ messageId }: GetRequest): void {
  const bad = new Violations()
  bad.messageId(messageId, 'message_id')
  bad.throwIfAny()
}

export function checkRenewEdge(request: RenewEdgeRequest): void {
  const bad = new Violations()
  bad.matches(request.name, edgeNamePattern, 'name', '1 to 63 characters of [a-z0-9-]')
  bad.edgeId(request.edgeId, 'edge_id')
  bad.demand(request.edgeId.slice(0, -9) === request.name, 'edge_id', 'must begin with the name')
  bad.hostPort(request.address, 'address')
  bad.matches(request.zone, zonePattern, 'zone', 'at most 63 characters of [A-Za-z0-9._-]')
  bad.count(request.connectionCount, 'connection_count')
  bad.count(request.connectionLimit, 'connection_limit')
  if (request.ttl !== undefined) bad.duration(request.ttl, [leaseTtlMinMs, leaseTtlMaxMs], 'ttl')
  bad.throwIfAny()
}

/** Returns the page's size and the edge id after which it begins ('' for the first). */
export function checkListEdges({ pageSize, pageToken }: ListEdgesRequest): { size: number; after: string } {
  const bad = new Violations()
  const page = bad.page(pageSize, pageToken, edgeIdPattern)
  bad.throwIfAny()
  return page
}

/** Returns the page's size and the device id after which it begins ('' for the first). */
export function checkLookupAccount({ accountId, pageSize, pageToken }: LookupAccountRequest): { size: number; after: string } {
  const bad = new Violations()
  bad.matches(accountId, PUSH_ID_PATTERN, 'account_id', '1 to 128 characters of [A-Za-z0-9._:~-]')
  const page = bad.page(pageSize, pageToken, PUSH_ID_PATTERN)
  bad.throwIfAny()
  return page
}

/** The token of the page that begins after this edge or device. */
export function pageTokenAfter(id: string): string {
  return Buffer.from(id, 'latin1').toString('base64url')
}

function durationMs(duration: Duration): number {
  try {
    return msFromDuration(duration)
  } catch (error) {
    if (error instanceof RangeError) return Number.NaN
    throw error
  }
}
