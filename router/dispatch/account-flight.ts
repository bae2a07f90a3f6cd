import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import { createBackoff } from '../../service-kit/backoff.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { Random } from '../../service-kit/random.ts'
import type { Boarding } from './lanes.ts'
import type { Lookups } from './lookups.ts'

/** The message's flight to one device of the account. */
export interface DeviceFlight {
  board(): void
  start(): void
}

/** What an account's flight needs. */
export interface AccountFlightOptions {
  readonly message: QueuedMessage
  readonly accountId: string
  readonly lookups: Pick<Lookups, 'accountDevices'>
  readonly clock: Clock
  readonly random: Random
  /** A call to the registry has failed (true), or answered again (false). */
  registryFails(fails: boolean): void
  /** Makes the flight to one device; `onSettled` is called when it has no next step. */
  flightTo(deviceId: string, onSettled: () => void): DeviceFlight
  /** Every device that the account has is on its way: the account's next message may go. Called once. */
  onHandedOff(): void
  /** No device has a next step. Called once. */
  onSettled(deviceCount: number): void
}

/** Devices of one account that are in flight at once. */
export const devicesInFlightMax = 64
const backOffMs = { base: 50, cap: 1_000 }

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
    let pageToken: string | undefined = ''
    while (pageToken !== undefined) {
      const page: { deviceIds: string[]; nextPageToken: string } = await this.#page(pageToken)
      for (const deviceId of page.deviceIds) {
        this.#send(deviceId)
        if (this.#flyingCount >= devicesInFlightMax) await new Promise<void>((resolve) => (this.#room = resolve))
      }
      pageToken = page.nextPageToken || undefined
    }
    this.#listed = true
    this.#options.onHandedOff()
    this.#settleIfDone()
  }

  /** One page of the account's devices, however long the registry is away: until it answers nothing is decided, and nothing given up. */
  async #page(pageToken: string): Promise<{ deviceIds: string[]; nextPageToken: string }> {
    const { lookups, accountId, clock, random, registryFails } = this.#options
    const backoff = createBackoff({ baseMs: backOffMs.base, capMs: backOffMs.cap, random })
    while (true) {
      try {
        const page = await lookups.accountDevices(accountId, pageToken)
        registryFails(false)
        return page
      } catch {
        registryFails(true)
        await clock.sleep(backoff.next())
      }
    }
  }

  #send(deviceId: string): void {
    this.#flyingCount++
    this.#deviceCount++
    const flight = this.#options.flightTo(deviceId, () => {
      this.#flyingCount--
      this.#room?.()
      this.#room = undefined
      this.#settleIfDone()
    })
    flight.board()
    flight.start()
  }

  #settleIfDone(): void {
    if (this.#listed && this.#flyingCount === 0) this.#options.onSettled(this.#deviceCount)
  }
}
