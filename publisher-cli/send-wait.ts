import { Status } from 'nice-grpc-common'
import { MessageState, StateReason } from '../gen/push/v1/message.ts'
import type { DeviceOutcome, PublishResponse } from '../gen/push/v1/publish.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import type { Service } from './connection.ts'
import type { CliContext } from './context.ts'
import { ExitCode } from './exit-codes.ts'
import { followMessage } from './following.ts'
import { exitCodeOfDevices, type ReachedState, tellOutcome } from './outcomes.ts'
import { printable } from './output.ts'

/** How far a send waits. */
export type Wait = 'accepted' | 'written' | 'acked' | 'result'

/** What a send waits for. */
export interface WaitOptions {
  readonly wait: Wait
  readonly direct: boolean
  /** It went to an account: how many devices that is nobody knows beforehand. */
  readonly toAccount: boolean
  /** Also until a device that is offline has come and answered. */
  readonly waitOnline: boolean
  /** Longest wait in ms, from now on. */
  readonly timeoutMs: number
}

/** What a send came to. */
export interface SendEnd {
  readonly exitCode: ExitCode
  /** One sentence a device, for people. */
  readonly words: readonly string[]
  /** What is known of each device; empty where nobody has followed the message. */
  readonly devices: readonly DeviceOutcome[]
  /** Why it was not followed to the end. */
  readonly failure?: string
}

/**
 * Waits until a message that was just published is where the sender wants it, and says what it came to. `elapsedMs` tells the time since it was sent.
 * Throws only when the command is interrupted: that the end cannot be learned does not take back that the message was accepted.
 */
export async function awaitEnd(
  service: Service,
  response: PublishResponse,
  target: string,
  options: WaitOptions,
  elapsedMs: () => number,
  context: CliContext,
): Promise<SendEnd> {
  const { messageId } = response
  if (isEnough(response, options)) {
    const { exitCode, words } = tellOutcome(response, target, elapsedMs())
    return { exitCode, words: [words], devices: [] }
  }
  const known = new Map<string, DeviceOutcome>()
  const end = (exitCode: ExitCode, words: readonly string[], failure?: string): SendEnd => ({
    exitCode,
    words,
    devices: [...known.values()],
    ...(failure === undefined ? {} : { failure }),
  })
  const leave = new AbortController()
  const signal = AbortSignal.any([leave.signal, context.interrupted])
  const following = { timeoutMs: options.timeoutMs, accepted: true, signal }
  const steps = followMessage(service, messageId, following, context)
  try {
    for (;;) {
      const settled = known.size > 0 && [...known.values()].every((device) => isSettled(device, options))
      if (settled && !options.toAccount) break
      const step = await (settled ? orQuiet(steps.next(), context) : steps.next())
      if (step.done) break
      const { device } = step.value
      if (!device) continue
      const before = known.get(device.deviceId)?.outcome?.state
      known.set(device.deviceId, device)
      if (before !== device.outcome?.state && !isSettled(device, options)) context.output.talk(`${soFar(device)}; waiting`)
    }
    const devices = [...known.values()]
    return end(
      exitCodeOfDevices(devices),
      devices.map((device) => {
        const name = printable(device.deviceId)
        const { words } = tellOutcome(reached(messageId, device), name, elapsedMs())
        return options.toAccount ? `${name}: ${words}` : words
      }),
    )
  } catch (error) {
    if (context.interrupted.aborted) throw error
    const { status, message } = callErrorOf(error)
    const id = `(message ${messageId})`
    context.output.talk(`the message was accepted; push-cli status ${messageId} tells what becomes of it`)
    if (status === Status.DEADLINE_EXCEEDED) {
      const sofar = known.size === 0 ? 'not delivered yet' : [...known.values()].map(soFar).join(', ')
      return end(ExitCode.GAVE_UP, [`gave up waiting: ${sofar} ${id}`])
    }
    const exitCode = status === Status.UNAVAILABLE ? ExitCode.UNAVAILABLE : ExitCode.GAVE_UP
    return end(exitCode, [`gave up waiting: ${printable(message)} ${id}`], message)
  } finally {
    leave.abort()
    // Left where it stands, the watch would keep its deadline's timer, and with it the process.
    await steps.return().catch(() => undefined)
  }
}

/** How long an account's message must stay as it is until its devices count as all known, in ms. */
const quietMs = 1_000

/** The next step, or the end when none comes for a while. */
async function orQuiet<T>(next: Promise<IteratorResult<T, void>>, { clock }: CliContext): Promise<IteratorResult<T, void>> {
  const come = new AbortController()
  const quiet = clock.sleep(quietMs, come.signal).then(
    (): IteratorResult<T, void> => ({ done: true, value: undefined }),
    () => next,
  )
  try {
    return await Promise.race([next, quiet])
  } finally {
    come.abort()
    // When it stayed quiet, nobody asks any more what comes after.
    next.catch(() => undefined)
  }
}

/** Whether the publish's own answer says all that is waited for. */
function isEnough({ state, outcome }: PublishResponse, { wait, direct, waitOnline }: WaitOptions): boolean {
  if (wait === 'accepted') return true
  if (!direct) return false
  if (state === MessageState.STORED || outcome?.reason === StateReason.WAIT_ENDED) return !waitOnline
  return wait !== 'result' || state !== MessageState.ACKNOWLEDGED
}

function isSettled({ outcome, final }: DeviceOutcome, { waitOnline }: WaitOptions): boolean {
  return final || (outcome?.state === MessageState.STORED && !waitOnline)
}

function reached(messageId: string, { outcome }: DeviceOutcome): ReachedState {
  return { messageId, state: outcome?.state ?? MessageState.UNSPECIFIED, outcome }
}

function soFar({ deviceId, outcome }: DeviceOutcome): string {
  const device = printable(deviceId)
  switch (outcome?.state) {
    case MessageState.STORED:
      return `stored until ${device} comes`
    case MessageState.WRITTEN:
      return `written to ${device}, not acknowledged yet`
    case MessageState.ACKNOWLEDGED:
      return `acknowledged by ${device}, no result yet`
    default:
      return 'not delivered yet'
  }
}
