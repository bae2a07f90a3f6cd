import type { TokenLevel, TokenRate } from '../service-kit/token-bucket.ts'
import { takeToken, tokensAt } from '../service-kit/token-bucket.ts'
import type { ClientFrame } from './frames.ts'

/** What a device may send, now. */
export interface FrameRules {
  /** Frames a second, pings and pongs of the WebSocket among them; large ones and long acks count more than once. */
  readonly deviceFrames: TokenRate
  /** Most replies in a row that could not be sent because the device does not read. */
  readonly unreadRepliesMax: number
}

/** Counts once more for each started piece of this size: what costs is to read it. */
const bytesPerToken = 4_096
/** Counts once more for so many: each id is looked for, and one that is not here goes up to a router. */
const idsPerToken = 10

/** What one device has sent of late. */
export class FrameLimits implements TokenLevel {
  tokens: number
  filledAt: number
  #unreadReplies = 0

  constructor(rules: Pick<FrameRules, 'deviceFrames'>, nowMs: number) {
    this.tokens = rules.deviceFrames.burst
    this.filledAt = nowMs
  }

  /** Takes what a frame of this size costs; false when it is not there. */
  take(rules: FrameRules, nowMs: number, length = 0): boolean {
    return this.#pay(rules, nowMs, Math.max(1, Math.ceil(length / bytesPerToken)))
  }

  /** What the frame costs besides, once it is known. */
  takeMore(rules: FrameRules, nowMs: number, frame: ClientFrame): boolean {
    const count = frame.type === 'ack' ? Math.floor(frame.ids.length / idsPerToken) : 0
    return count === 0 || this.#pay(rules, nowMs, count)
  }

  /** Takes what these frames, `length` long together, cost in one request; or nothing, and is false, when it is not there. */
  takeTogether(rules: Pick<FrameRules, 'deviceFrames'>, nowMs: number, frames: readonly ClientFrame[], length: number): boolean {
    const ids = frames.reduce((sum, frame) => sum + (frame.type === 'ack' ? Math.floor(frame.ids.length / idsPerToken) : 0), 0)
    return this.#pay(rules, nowMs, Math.max(frames.length, Math.ceil(length / bytesPerToken)) + ids)
  }

  /** A reply could not be sent; false when that is one too many. */
  unread(rules: FrameRules): boolean {
    return ++this.#unreadReplies <= rules.unreadRepliesMax
  }

  /** The device reads again. */
  read(): void {
    this.#unreadReplies = 0
  }

  #pay({ deviceFrames }: Pick<FrameRules, 'deviceFrames'>, nowMs: number, count: number): boolean {
    if (count === 1) return takeToken(this, deviceFrames, nowMs)
    // A small burst must not keep a large frame from ever being taken.
    const tokens = tokensAt(this, deviceFrames, nowMs)
    const enough = tokens + 1e-6 >= Math.min(count, deviceFrames.burst)
    this.tokens = enough ? Math.max(0, tokens - count) : tokens
    this.filledAt = nowMs
    return enough
  }
}
