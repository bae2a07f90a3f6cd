import { Status } from 'nice-grpc-common'
import { type MessageOutcome, MessageState, StateReason } from '../gen/push/v1/message.ts'
import type { DeviceOutcome, PublishResponse } from '../gen/push/v1/publish.ts'
import { callErrorOf } from '../service-kit/errors.ts'
import type { Service } from './connection.ts'
import type { CliContext } from './context.ts'
import { ExitCode } from './exit-codes.ts'
import { followMessage } from './following.ts'
import { exitCodeOfDevices, headed, type ReachedState, tellOutcome } from './outcomes.ts'
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
  const ofDevices = response.devices.length > 0
  if (!ofDevices && isEnough(response, options)) {
    const { exitCode, words } = tellOutcome(response, target, elapsedMs())
    return { exitCode, words: [words], devices: [] }
  }
  const known = new Map(response.devices.map((device) => [device.deviceId, device]))
  const end = (exitCode: ExitCode, words: readonly string[], failure?: string): SendEnd => ({
    exitCode,
    words,
    devices: [...known.values()],
    ...(failure === undefined ? {} : { failure }),
  })
  let deviceCount = response.devices.length
  const told = (): SendEnd => {
    const devices = [...known.values()]
    const words = devices.map((device) => {
      const { words } = tellOutcome(reached(messageId, device), printable(device.deviceId), elapsedMs())
      return options.toAccount ? headed(device, words) : words
    })
    const missing = deviceCount - devices.length
    if (missing > 0) words.push(`${missing} of ${deviceCount} devices: nothing recorded`)
    return end(exitCodeOfDevices(devices, deviceCount), words)
  }
  if (ofDevices && response.devices.every(({ outcome }) => isEnough({ state: stateOf(outcome), outcome }, options))) return told()
  const leave = new AbortController()
  const signal = AbortSignal.any([leave.signal, context.interrupted])
  const following = { timeoutMs: options.timeoutMs, accepted: true, signal }
  const steps = followMessage(service, messageId, following, context)
  try {
    for (;;) {
      // Of an account it is said with each device how many there are.
      const allKnown = known.size > 0 && (!options.toAccount || known.size >= deviceCount)
      if (allKnown && [...known.values()].every((device) => isSettled(device, options))) break
      const step = await steps.next()
      if (step.done) break
      deviceCount = Math.max(deviceCount, step.value.deviceCount)
      const { device } = step.value
      if (!device) continue
      const before = known.get(device.deviceId)?.outcome?.state
      known.set(device.deviceId, device)
      if (before !== device.outcome?.state && !isSettled(device, options)) context.output.talk(`${soFar(device)}; waiting`)
    }
    return told()
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

/** Whether the publish's own answer says all that is waited for. */
function isEnough(
  { state, outcome }: Pick<PublishResponse, 'state' | 'outcome'>,
  { wait, direct, waitOnline }: WaitOptions,
): boolean {
  if (wait === 'accepted') return true
  if (!direct) return false
  if (state === MessageState.STORED || outcome?.reason === StateReason.WAIT_ENDED) return !waitOnline
  return wait !== 'result' || state !== MessageState.ACKNOWLEDGED
}

function isSettled({ outcome, final }: DeviceOutcome, { waitOnline }: WaitOptions): boolean {
  return final || (outcome?.state === MessageState.STORED && !waitOnline)
}

function reached(messageId: string, { outcome }: DeviceOutcome): ReachedState {
  return { messageId, state: stateOf(outcome), outcome }
}

function stateOf(outcome: MessageOutcome | undefined): MessageState {
  return outcome?.state ?? MessageState.UNSPECIFIED
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
