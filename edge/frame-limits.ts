import { type TokenLevel, type TokenRate, takeToken } from '../service-kit/token-bucket.ts'
import type { ClientFrame } from './frames.ts'

/** What a device may send, now. */
export interface FrameRules {
  /**
   * Frames a second, pings and pongs of the WebSocket among them; large ones and long acks count more than once. Answers to what the device
   * was sent are not counted: their number and size is bounded by what was sent, and the device would be stopped for doing what is asked of it.
   */
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

  /** Takes what every frame costs, before it is looked at; false when it is not there. */
  take(rules: FrameRules, nowMs: number): boolean {
    return this.#pay(rules, nowMs, 1)
  }

  /** What the frame costs besides, once it is known; undefined for one that cannot be read, or need not be. */
  takeMore(rules: FrameRules, nowMs: number, frame: ClientFrame | undefined, length: number): boolean {
    const count = Math.max(0, Math.ceil(length / bytesPerToken) - 1) + idTokens(frame)
    return count === 0 || this.#pay(rules, nowMs, count)
  }

  /** The frame is not to be counted: what was taken for it is there again. */
  giveBack({ deviceFrames }: FrameRules): void {
    this.tokens = Math.min(deviceFrames.burst, this.tokens + 1)
  }

  /** Takes what these frames, `length` long together, cost in one request; or nothing, and is false, when it is not there. */
  takeTogether(rules: Pick<FrameRules, 'deviceFrames'>, nowMs: number, frames: readonly ClientFrame[], length: number): boolean {
    const ids = frames.reduce((sum, frame) => sum + idTokens(frame), 0)
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
    // A small burst must not keep a large frame from ever being taken.
    return takeToken(this, deviceFrames, nowMs, Math.min(count, deviceFrames.burst))
  }
}

function idTokens(frame: ClientFrame | undefined): number {
  return frame?.type === 'ack' ? Math.floor(frame.ids.length / idsPerToken) : 0
}
