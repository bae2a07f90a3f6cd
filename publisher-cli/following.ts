import { Status } from 'nice-grpc-common'
import { PublishServiceDefinition, type WatchMessageResponse } from '../gen/push/v1/publish.ts'
import { createBackoff } from '../service-kit/backoff.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import { systemRandom } from '../service-kit/random.ts'
import type { Service } from './connection.ts'
import type { CliContext } from './context.ts'

/** How a message is followed. */
export interface FollowOptions {
  /** Longest wait in ms; undefined: until the end. */
  readonly timeoutMs: number | undefined
  /** The service has accepted the message just now: that nothing is recorded of it means that it is still queued. */
  readonly accepted: boolean
  /** Ends it. */
  readonly signal: AbortSignal
}

/** How long a service that cuts or refuses the watch is asked again, in ms: another router takes it, or the registry comes back. */
const troubleMaxMs = 15_000

/**
 * Follows a message to its final state at every device, over as many watches as that takes; a repeated first step is told apart by its reader.
 * Ends by returning, or with the error of a call: DEADLINE_EXCEEDED when the time is over.
 */
export async function* followMessage(
  service: Service,
  messageId: string,
  { timeoutMs, accepted, signal }: FollowOptions,
  { clock }: Pick<CliContext, 'clock'>,
): AsyncGenerator<WatchMessageResponse, void, undefined> {
  const client = service.client(PublishServiceDefinition)
  const endsAt = timeoutMs === undefined ? undefined : clock.monotonic() + timeoutMs
  const backoff = createBackoff({ baseMs: 200, capMs: 2_000, random: systemRandom })
  let goodAt = clock.monotonic()
  for (;;) {
    const startedAt = clock.monotonic()
    try {
      // At least a moment: a deadline of 0 is none at all. The call then ends as any other whose time is over.
      const deadline = endsAt === undefined ? {} : { deadlineMs: Math.max(1, endsAt - startedAt) }
      for await (const step of client.watchMessage({ messageId }, { ...deadline, signal })) {
        goodAt = clock.monotonic()
        backoff.reset()
        yield step
      }
      return
    } catch (error) {
      if (signal.aborted) throw error
      const { status, reason } = callErrorOf(error)
      // The router has waited for it for a while, so it may be asked again at once.
      if (reason === 'MESSAGE_UNKNOWN' && accepted) goodAt = clock.monotonic()
      else if (status === Status.UNAVAILABLE) {
        // A watch that stood for long was fine until now.
        if (startedAt - goodAt > troubleMaxMs) throw error
      } else throw error
      if (endsAt !== undefined && clock.monotonic() >= endsAt) throw error
    }
    await clock.sleep(50 + backoff.next(), signal)
  }
}
