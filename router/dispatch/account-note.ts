import type { QueuedMessage } from '../../gen/push/internal/v1/queue.ts'
import type { StateRecorder } from './state-recorder.ts'

/**
 * Records once, for all flights of a message to an account, how many devices it is for, so that whoever follows the message knows of how many ends to
 * wait. Nothing is held up by it but the receipts of the devices: none of them is written before it.
 */
export class AccountNote {
  readonly #message: QueuedMessage
  readonly #deviceCount: number
  readonly #recorder: StateRecorder
  #written: Promise<void> | undefined

  constructor(message: QueuedMessage, deviceCount: number, recorder: StateRecorder) {
    this.#message = message
    this.#deviceCount = deviceCount
    this.#recorder = recorder
  }

  /** Resolves once it is written, or none is wanted. Rejects with REGISTRY_UNAVAILABLE; the next call tries again. */
  write(): Promise<void> {
    this.#written ??= this.#recorder.recordAccount(this.#message, this.#deviceCount).catch((error: unknown) => {
      this.#written = undefined
      throw error
    })
    return this.#written
  }

  /** A recorder for the flights to the account's devices: what they record comes after this. */
  recorderAfter(): StateRecorder {
    return {
      record: async (...what) => {
        await this.write()
        await this.#recorder.record(...what)
      },
      recordAccount: (...what) => this.#recorder.recordAccount(...what),
    }
  }
}
