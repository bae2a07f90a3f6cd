import type { CloseSessionResult, Delivery } from '../gen/push/internal/v1/edge.ts'
import type { CloseKind } from './close-codes.ts'
import { closeKinds } from './close-codes.ts'
import { type DeviceAnswer, resultOf } from './device-answer.ts'
import type { Waiter } from './entry.ts'
import { FrameLimits } from './frame-limits.ts'
import type { ClientFrame, ControlFrame } from './frames.ts'
import { ackIdsMax, invalidFrame } from './frames.ts'
import { Session, type SessionEvent, type SessionOrder } from './session.ts'
import { SessionClocks } from './session-clocks.ts'
import { SessionCredential } from './session-credential.ts'
import type { SessionHost, SessionOptions, Transport } from './session-host.ts'
import { SessionInbox, type WaitingPoke } from './session-inbox.ts'
import { SessionMessages } from './session-messages.ts'
import { isAwaited, takeAnswer } from './take-answer.ts'
import type { WheelItem } from './timer-wheel.ts'

/** One device's stay: does what its state machine says, with a transport, messages and deadlines. */
export class DeviceSession implements WheelItem {
  readonly deviceId: string
  readonly accountId: string
  /** False: the device said at connect that it cannot acknowledge. */
  readonly acknowledges: boolean
  readonly connectedTime: number
  wheelSlot = -1
  /** The one installed before it for the same device; the session table's own. */
  nextOfDevice: DeviceSession | undefined = undefined
  readonly #host: SessionHost
  readonly #machine: Session
  readonly #transport: Transport
  readonly #clocks: SessionClocks
  // Most sessions are idle: made with the first message.
  #messages: SessionMessages | undefined
  // Made with the first sign that messages wait.
  #inbox: SessionInbox | undefined
  // Made with the first new credential.
  #credential: SessionCredential | undefined
  readonly #credentialEndsAtMax: number
  // Made with the first frame.
  #frameLimits: FrameLimits | undefined
  // What `leave` was told while it was registering.
  #leaveOnceOpen: Parameters<DeviceSession['leave']> | undefined
  #invalidFrames = 0
  #sweepAt = Number.POSITIVE_INFINITY

  constructor(host: SessionHost, transport: Transport, options: SessionOptions) {
    this.#host = host
    this.#transport = transport
    this.deviceId = options.deviceId
    this.accountId = options.accountId
    this.acknowledges = options.acknowledges
    this.connectedTime = host.clock.nowMicros()
    this.#machine = new Session(options.sessionId, host.settings)
    this.#clocks = new SessionClocks(host, options.credentialEndsAt)
    this.#credentialEndsAtMax = options.credentialEndsAtMax
    host.metrics.sessions.inc({ state: 'registering' })
  }

  get sessionId(): string {
    return this.#machine.sessionId
  }
  /** How its frames travel, as rows in the registry call it. */
  get protocol(): string {
    return this.#transport.codec.protocol
  }
  get order(): SessionOrder {
    return this.#machine.order
  }
  get writes(): boolean {
    return this.#machine.writes
  }
  get accepts(): boolean {
    return this.#machine.accepts
  }
  get closed(): boolean {
    return this.#machine.state === 'closed'
  }
  /** No rule keeps the socket longer than this, counted from its start. */
  get rowTtlMs(): number {
    return this.#clocks.rowTtlMs
  }
  /** Whether what a flush brings would be taken and written soon. */
  get hasRoom(): boolean {
    return this.#messages?.hasRoom ?? true
  }
  /** How long until the device may have as many messages again as make a flush worth while, in ms. */
  get refillMs(): number {
    return this.#messages?.refillMs ?? 0
  }
  /** When the time for registering is over, on the monotonic clock. */
  get registerBy(): number {
    return this.#clocks.registerBy
  }

  /** Starts its deadlines. To be called once it is in the session table. */
  start(): void {
    this.#reschedule()
  }

  /** Feeds the state machine and does what it says. Returns what a close is to be answered. */
  handle(event: SessionEvent): CloseSessionResult | undefined {
    const before = this.#machine.state
    const effects = this.#machine.handle(event)
    const after = this.#machine.state
    if (after !== before) {
      this.#host.metrics.sessions.dec({ state: before })
      if (after !== 'closed') this.#host.metrics.sessions.inc({ state: after })
      else this.#host.wheel.remove(this)
    }
    let result: CloseSessionResult | undefined
    for (const effect of effects) {
      switch (effect.type) {
        case 'welcome':
          this.#welcome()
          break
        case 'goaway':
          this.#control({ type: 'goaway', reason: effect.reason, reconnect_after_ms: Math.round(effect.slotMs) })
          break
        case 'finish':
          this.#clocks.finishing()
          this.#finishedYet()
          break
        case 'close socket':
          this.#transport.close(effect.kind, effect.detail)
          break
        case 'mail':
          this.#inboxOf().handle({ type: 'mail' })
          break
        case 'give back':
          this.#messages?.giveBack()
          this.#inbox?.handle({ type: 'session ended' })
          break
        case 'unregister':
          this.#host.unregister({ deviceId: this.deviceId, sessionId: this.sessionId, epoch: effect.epoch })
          break
        case 'tell replaced':
          this.#host.tellReplaced(effect.rows, effect.replacer)
          break
        case 'duplicate identity':
          this.#host.reportDuplicate(this, effect.takeovers)
          break
        case 'answer close':
          result = effect.result
          break
      }
    }
    if (!this.closed) this.#reschedule()
    return result
  }

  /**
   * Tells the device to leave in its slot, and closes with `kind` when it is still here after slot and grace. One that is registering is told
   * once it is open: closed before, it would still take the place of the device's older session, and leave the device without any.
   */
  leave(reason: string, slotMs: number, graceMs: number, kind: CloseKind): void {
    if (this.closed) return
    if (!this.writes) {
      this.#leaveOnceOpen = [reason, slotMs, graceMs, kind]
      return
    }
    this.#clocks.leaving(slotMs + graceMs, kind)
    this.handle({ type: 'leave', reason, slotMs })
  }

  /** Takes back a `leave` with this kind: the device may stay until its lifetime is over. */
  stay(kind: CloseKind): void {
    this.#leaveOnceOpen = undefined
    if (this.#clocks.staying(kind)) this.handle({ type: 'stay' })
  }

  /** Takes a delivery. The waiter is told every outcome, also when it is not taken. */
  deliver(delivery: Delivery, waiter: Waiter): void {
    this.#messages ??= new SessionMessages(this.#host, this, this.#transport)
    this.#messages.deliver(delivery, waiter)
    if (this.closed) return
    if (this.#messages.restless && this.#sweepAt === Number.POSITIVE_INFINITY) {
      this.#sweepAt = this.#host.clock.monotonic() + this.#host.settings.sweepMs
      this.#reschedule()
    }
  }

  /** Messages wait in the device's inbox. The poke is answered when they have been read for this session, or when it has ended. */
  poke(poke: WaitingPoke): void {
    this.#inboxOf().handle({ type: 'poke', poke })
    this.rescheduled()
  }

  /** Messages may wait in the device's inbox. */
  mail(): void {
    this.#inboxOf().handle({ type: 'mail' })
    this.rescheduled()
  }

  /** Messages that are written and not answered. */
  unanswered(): Set<string> {
    return this.#messages?.unanswered() ?? new Set()
  }

  /** One of its deadlines has moved. */
  rescheduled(): void {
    if (!this.closed) this.#reschedule()
  }

  /** Whether the message is here already: then `deliver` joins it, even while the session is being closed. */
  holds(messageId: string): boolean {
    return this.#messages?.holds(messageId) ?? false
  }

  /** Whether the device has acknowledged the message, and its result is still to come. */
  awaits(messageId: string): boolean {
    return this.#messages?.awaits(messageId) ?? false
  }

  /** Whether an answer of this type would be the first to a message that is here. */
  expects(messageId: string, type: DeviceAnswer['type']): boolean {
    return this.#messages?.expects(messageId, type) ?? false
  }

  /** A device's answer to a message of this session; false when there is no such message. */
  settle(messageId: string, answer: DeviceAnswer): boolean {
    const settled = this.#messages?.answered(messageId, answer) ?? false
    if (!settled) return false
    this.#inbox?.handle({ type: 'settled', messageId })
    this.#progressed()
    return true
  }

  // What the transport tells.

  /** Any sign of life. */
  heard(): void {
    this.#clocks.heard()
  }

  /** A pong of the transport's own. */
  ponged(): boolean {
    this.#clocks.heard()
    return !this.closed && this.#paid(this.#limits.take(this.#host.settings, this.#host.clock.monotonic()))
  }

  /** A ping of the transport's own. Returns whether it is to be answered. */
  pinged(): boolean {
    if (!this.ponged()) return false
    if (this.#transport.writable) return true
    this.#unread('pong')
    return false
  }

  /** A frame: a string came as text, a Buffer as binary. */
  receive(data: string | Buffer): void {
    const { settings, clock } = this.#host
    this.#clocks.heard()
    const nowMs = clock.monotonic()
    if (!this.#paid(this.#limits.take(settings, nowMs))) return
    const decoded =
      this.#machine.state === 'registering'
        ? invalidFrame('nothing may be sent before welcome')
        : this.#transport.codec.decode(data)
    const frame = decoded.ok ? decoded.frame : undefined
    if (frame !== undefined && isAwaited(this.#host, this.deviceId, frame)) this.#limits.giveBack(settings)
    else if (!this.#paid(this.#limits.takeMore(settings, nowMs, frame, data.length))) return
    if (decoded.ok) this.#take(decoded.frame)
    else this.#invalid(decoded.reason, decoded.message)
  }

  /** The transport takes frames again. */
  writable(): void {
    this.#frameLimits?.read()
    if (!this.writes) return
    this.#messages?.pump()
    this.#progressed()
  }

  /** The transport is gone. */
  socketClosed(): void {
    this.handle({ type: 'socket closed' })
    this.#messages?.abandon()
    this.#host.ended(this)
  }

  due(nowMs: number): number {
    const verdict = this.#clocks.due(nowMs)
    if (verdict?.event !== undefined) this.handle(verdict.event)
    else if (verdict?.leave !== undefined) {
      const { slotMs, graceMs } = verdict.leave
      this.leave('lifetime', slotMs, graceMs, closeKinds.lifetime)
    } else if (verdict?.ping === true) this.#transport.ping()
    else if (verdict?.suspect === true) this.#host.liveness.afterReading(this.#judge)
    if (nowMs >= this.#sweepAt) this.#sweep(nowMs)
    if (this.#inbox !== undefined && nowMs >= this.#inbox.nextDue) this.#inbox.handle({ type: 'due' })
    return this.closed ? Number.POSITIVE_INFINITY : this.#nextDue()
  }

  // Made only when somebody is suspected, which is rare.
  get #judge() {
    return () => {
      if (!this.closed && this.#clocks.silent) this.handle({ type: 'end', kind: closeKinds.noPong })
    }
  }

  #sweep(nowMs: number): void {
    const messages = this.#messages
    messages?.expire(nowMs)
    this.#progressed()
    if (messages?.stuckSince !== undefined && nowMs - messages.stuckSince >= this.#host.settings.stuckMs) {
      this.handle({ type: 'end', kind: closeKinds.slowConsumer })
    }
    this.#sweepAt = messages?.restless && !this.closed ? nowMs + this.#host.settings.sweepMs : Number.POSITIVE_INFINITY
  }

  #welcome(): void {
    const { settings, clock } = this.#host
    this.#clocks.opened()
    const expireTime = this.#clocks.credentialExpireTime
    this.#control({
      type: 'welcome',
      session_id: this.sessionId,
      device_id: this.deviceId,
      server_time: clock.nowMicros(),
      ping_interval_ms: settings.pingIntervalMs,
      limits: { frame_bytes: settings.clientFrameLimitBytes, ack_ids: ackIdsMax, unanswered_messages: settings.pendingMax },
      ...(expireTime !== undefined && { credential_expire_time: expireTime }),
    })
    this.#messages?.pump()
    this.#inbox?.handle({ type: 'opened' })
    const told = this.#leaveOnceOpen
    this.#leaveOnceOpen = undefined
    if (told !== undefined) this.leave(...told)
  }

  #inboxOf(): SessionInbox {
    this.#inbox ??= new SessionInbox(this.#host, this)
    return this.#inbox
  }

  #take(frame: ClientFrame): void {
    switch (frame.type) {
      case 'ack':
        for (const id of frame.ids) takeAnswer(this.#host, this, id, { type: 'ack' })
        break
      case 'nack':
        takeAnswer(this.#host, this, frame.id, { type: 'nack', detail: frame.reason ?? '' })
        break
      case 'result':
        takeAnswer(this.#host, this, frame.id, resultOf(frame))
        break
      case 'ping':
        this.#reply({ type: 'pong', ...(frame.data !== undefined && { data: frame.data }) })
        break
      case 'pong':
        break // a sign of life, as every frame
      case 'credential':
        this.showCredential(frame.token)
        break
    }
  }

  /** A new credential, by a frame or beside the connection. What becomes of it is told in a frame. */
  showCredential(token: string): void {
    const { identity } = this.#host
    if (identity === undefined) return this.#invalid('INVALID_FRAME', 'this session has no credential that could be replaced')
    this.#credential ??= new SessionCredential(this.#host, this, {
      accepted: (endsAt) => {
        this.#clocks.credentialRefreshed(Math.min(endsAt, this.#credentialEndsAtMax))
        const expireTime = this.#clocks.credentialExpireTime
        this.#reply({ type: 'credential_accepted', ...(expireTime !== undefined && { expire_time: expireTime }) })
        this.#reschedule()
      },
      refused: (reason, message) => this.#reply({ type: 'error', reason, message }),
    })
    this.#credential.show(identity, token)
  }

  #invalid(reason: 'UNKNOWN_TYPE' | 'INVALID_FRAME', message: string): void {
    if (this.closed) return
    this.#host.metrics.badFrames.inc({ reason })
    this.#reply({ type: 'error', reason, message })
    // A newer client may say what is not known here; what is no frame at all is another matter.
    if (reason !== 'INVALID_FRAME' || ++this.#invalidFrames < this.#host.settings.invalidFramesMax) return
    this.handle({ type: 'end', kind: closeKinds.protocolViolation, detail: 'too many invalid frames' })
  }

  get #limits(): FrameLimits {
    this.#frameLimits ??= new FrameLimits(this.#host.settings, this.#host.clock.monotonic())
    return this.#frameLimits
  }

  /** Ends the session of a device that sends too much. */
  #paid(taken: boolean): boolean {
    if (taken || this.closed) return taken
    const { metrics, settings } = this.#host
    metrics.frameLimitEnds.inc({ limit: 'rate' })
    const { ratePerSecond, burst } = settings.deviceFrames
    const message = `a device sends at most ${ratePerSecond} frames a second, and ${burst} at once`
    if (this.#transport.writable) this.#control({ type: 'error', reason: 'RATE_EXCEEDED', message })
    this.handle({ type: 'end', kind: closeKinds.protocolViolation, detail: 'too many frames' })
    return false
  }

  /** A device that asks and does not read what it is told. */
  #unread(type: string): void {
    const { metrics, settings } = this.#host
    metrics.controlDropped.inc({ type })
    if (this.#limits.unread(settings) || this.closed) return
    metrics.frameLimitEnds.inc({ limit: 'unread' })
    this.handle({ type: 'end', kind: closeKinds.protocolViolation, detail: 'replies are not read' })
  }

  /** For what a device can ask for as often as it likes: left out while it does not read. */
  #reply(frame: ControlFrame): void {
    if (this.closed) return
    if (this.#transport.writable) this.#control(frame)
    else this.#unread(frame.type)
  }

  #control(frame: ControlFrame): void {
    this.#transport.write(this.#transport.codec.encodeControl(frame))
  }

  #finishedYet(): void {
    if (this.#machine.accepts || this.closed) return
    if (this.#messages === undefined || this.#messages.idle) this.handle({ type: 'finished' })
  }

  /** Something was written, answered or given up. */
  #progressed(): void {
    this.#finishedYet()
    if (this.#inbox !== undefined && !this.closed && this.hasRoom) this.#inbox.handle({ type: 'room' })
  }

  #nextDue(): number {
    return Math.min(this.#clocks.nextDue(), this.#sweepAt, this.#inbox?.nextDue ?? Number.POSITIVE_INFINITY)
  }

  #reschedule(): void {
    this.#host.wheel.schedule(this, this.#nextDue())
  }
}
