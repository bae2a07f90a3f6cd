import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { Random } from '../../service-kit/random.ts'
import { AccountNote } from './account-note.ts'
import type { Boarding } from './lanes.ts'
import type { Lookups } from './lookups.ts'
import type { StateRecorder } from './state-recorder.ts'

/** What an account's flight needs. */
export interface AccountFlightOptions {
  readonly message: QueuedMessage
  readonly accountId: string
  readonly lookups: Pick<Lookups, 'accountDevices'>
  readonly recorder: StateRecorder
  readonly clock: Clock
  readonly random: Random
  /** A call to the registry has failed (true), or answered again (false). */
  registryFails(fails: boolean): void
  /**
   * Sends the message to one device, behind what was sent to it before; what it records goes to `recorder`, and `onSettled` is called, later, when it
   * has no next step.
   */
  sendTo(deviceId: string, recorder: StateRecorder, onSettled: () => void): void
  /** It is sent to every device that the account has, so the account's next message comes behind it at each: that one may go. Called once. */
  onHandedOff(): void
  /** No device has a next step, and that is recorded. Called once. */
  onSettled(deviceCount: number): void
}

/** Devices of one account that are in flight at once. */
export const devicesInFlightMax = 64
/** Devices that are counted before the first one is sent to; receipts tell of no more either. */
const countedMax = 10_000
const backOffMs = { base: 50, cap: 1_000 }

interface Page {
  readonly deviceIds: readonly string[]
  readonly nextPageToken: string
}

/**
 * One message on its way to every device that has logged in to an account, as the registry lists them when the message is dispatched. Each device has a
 * flight and an outcome of its own; the edge checks, when it writes, that the session still belongs to the account. The message is done with the
 * queue when all of them are.
 */
export class AccountFlight implements Boarding {
  readonly #options: AccountFlightOptions
  #flyingCount = 0
  #deviceCount = 0
  #listed = false
  #room: (() => void) | undefined

  constructor(options: AccountFlightOptions) {
    this.#options = options
  }

  /** Never equal to a device's id: those have no slash. */
  get chainKey(): string {
    return `account/${this.#options.accountId}`
  }

  /** The flights to the devices have holds of their own. */
  board(): void {}
  registryFails(): void {}
  readonly stuck = false
  waitBehindStuck(): void {}

  start(): void {
    void this.#expand()
  }

  async #expand(): Promise<void> {
    const { message, recorder } = this.#options
    let page = await this.#page('')
    const note = new AccountNote(message, await this.#count(page), recorder)
    if (page.deviceIds.length === 0) await this.#answered(() => note.write())
    // The flights see to it that it is written before they are done.
    else void note.write().catch(() => undefined)
    const notedRecorder = note.recorderAfter()
    while (true) {
      for (const deviceId of page.deviceIds) {
        this.#send(deviceId, notedRecorder)
        if (this.#flyingCount >= devicesInFlightMax) await new Promise<void>((resolve) => (this.#room = resolve))
      }
      if (page.nextPageToken === '') break
      page = await this.#page(page.nextPageToken)
    }
    this.#listed = true
    this.#options.onHandedOff()
    this.#settleIfDone()
  }

  /** How many devices the account has. Only one with more than a page of them is read for it, up to a bound. */
  async #count(first: Page): Promise<number> {
    let count = first.deviceIds.length
    for (let token = first.nextPageToken; token !== '' && count < countedMax; ) {
      const page = await this.#page(token)
      count += page.deviceIds.length
      token = page.nextPageToken
    }
    return count
  }

  #page(pageToken: string): Promise<Page> {
    const { lookups, accountId } = this.#options
    return this.#answered(() => lookups.accountDevices(accountId, pageToken))
  }

  /** Asks the registry, however long it is away: until it answers nothing is decided, and nothing given up. */
  async #answered<T>(ask: () => Promise<T>): Promise<T> {
    const { clock, random, registryFails } = this.#options
    const backoff = createBackoff({ baseMs: backOffMs.base, capMs: backOffMs.cap, random })
    while (true) {
      try {
        const answer = await ask()
        registryFails(false)
        return answer
      } catch {
        registryFails(true)
        await clock.sleep(backoff.next())
      }
    }
  }

  #send(deviceId: string, recorder: StateRecorder): void {
    this.#flyingCount++
    this.#deviceCount++
    this.#options.sendTo(deviceId, recorder, () => {
      this.#flyingCount--
      this.#room?.()
      this.#room = undefined
      this.#settleIfDone()
    })
  }

  #settleIfDone(): void {
    if (this.#listed && this.#flyingCount === 0) this.#options.onSettled(this.#deviceCount)
  }
}
