import type { MessageFrame } from '../gen/push/v1/device.ts'
import type { Answer } from './answers.ts'
import type { Clock, Timer } from './clock.ts'
import { type DeviceMessage, messageFrom } from './message.ts'
import { failedResult, messageOf, type Result, resultOf } from './result.ts'
import type { Seen, SeenStore } from './seen.ts'

/**
 * Handles one message. The message is acknowledged when this has returned (or its promise is fulfilled), and refused with the error's
 * message when it throws: a refused message is not sent again.
 *
 * A message with `confirm` RESULT is acknowledged when it is handed to the handler, which may then take as long as the publisher waits for
 * the result: what it returns (or its promise is fulfilled with) is sent as the result's data, at most 48 KiB of JSON, and an error as a
 * failed result. Such a message is not sent again once it is acknowledged, also when the process ends before its handler returns.
 */
export type Handler = (message: DeviceMessage) => unknown

/** One handler for all classes, or one for each class that the device takes; a class without one is refused. */
export type HandlersByClass = Handler | { readonly USER?: Handler; readonly DIAGNOSTIC?: Handler; readonly RECOVERY?: Handler }

/** What became of a message at the handlers. */
export type Handled = 'handled' | 'refused' | 'expired' | 'repeated' | 'overflowed'

/** Hands messages to the app, one after the other within a class, and apart from the other classes. */
export interface Handlers {
  receive(frame: MessageFrame): void
  /** Takes nothing more, and forgets what has not started yet. Resolves when the running handlers have returned. */
  stop(): Promise<void>
}

export interface HandlersOptions {
  readonly handlers: HandlersByClass
  readonly seen: Seen
  /** For RECOVERY. Without one, a command may run again after the process has restarted. */
  readonly seenStore: SeenStore | undefined
  readonly seenStoreTimeoutMs: number
  readonly clock: Clock
  /** Most messages that wait in one class. Above it a message is left unanswered: it comes again. */
  readonly queuedMax: number
  /** By the server's clock. */
  readonly isExpired: (expireTime: number) => boolean
  readonly onAnswer: (answer: Answer) => void
  readonly onHandled: (outcome: Handled, id: string) => void
  /** The store failed or did not answer; the command runs all the same, or a device in trouble could not be helped. */
  readonly onStoreFailure: (message: string) => void
}

interface Lane {
  readonly queue: MessageFrame[]
  running: Promise<void> | undefined
}

export function createHandlers(options: HandlersOptions): Handlers {
  const { seen, seenStore, onAnswer, onHandled } = options
  const lanes = new Map<string, Lane>()
  let stopped = false

  function receive(frame: MessageFrame): void {
    if (stopped) return
    const known = seen.look(frame.id)
    if (known.state !== 'new') {
      onHandled('repeated', frame.id)
      // A repeat of a message that is still in its handler is answered when that returns, unless it was acknowledged before.
      if (known.answer !== undefined) onAnswer(known.answer)
      return
    }
    const lane = laneOf(frame.class)
    if (lane.queue.length >= options.queuedMax) {
      onHandled('overflowed', frame.id)
      return
    }
    seen.start(frame.id)
    lane.queue.push(frame)
    // Not within the socket's own event: a handler that blocks or throws is none of its business.
    lane.running ??= Promise.resolve().then(() => work(lane))
  }

  /** A class that a later server may send goes with USER, so that the number of lanes stays what it is. */
  function laneOf(messageClass: string): Lane {
    const name = messageClass === 'RECOVERY' || messageClass === 'DIAGNOSTIC' ? messageClass : 'USER'
    const lane = lanes.get(name) ?? { queue: [], running: undefined }
    lanes.set(name, lane)
    return lane
  }

  async function work(lane: Lane): Promise<void> {
    for (let frame = lane.queue.shift(); frame !== undefined; frame = lane.queue.shift()) {
      const answer = await handle(frame)
      seen.answer(answer)
      onAnswer(answer)
    }
    lane.running = undefined
  }

  async function handle(frame: MessageFrame): Promise<Answer> {
    const { id } = frame
    try {
      if (options.isExpired(frame.expire_time)) {
        onHandled('expired', id)
        return { id, refusal: 'expired before the handler could take it' }
      }
      const handler = handlerOf(frame.class)
      if (handler === undefined) throw new Error(`no handler for messages of class ${frame.class}`)
      const message = messageFrom(frame)
      if (frame.class === 'RECOVERY' && seenStore !== undefined) {
        if (await ask(() => seenStore.has(id), false)) {
          onHandled('repeated', id)
          return { id }
        }
        // Before the handler: one that restarts the device never gets to a line after it.
        await ask(() => seenStore.add(id, frame.expire_time), undefined)
      }
      if (frame.confirm === 'RESULT') return { id, result: await resultFrom(handler, message) }
      await handler(message)
      onHandled('handled', id)
      return { id }
    } catch (error) {
      onHandled('refused', id)
      return { id, refusal: messageOf(error) }
    }
  }

  /** Acknowledged before: a plane that has to wait for a long handler would take the message for lost, and send it again. */
  async function resultFrom(handler: Handler, message: DeviceMessage): Promise<Result> {
    const acknowledgement = { id: message.id }
    seen.acknowledge(acknowledgement)
    onAnswer(acknowledgement)
    try {
      const result = resultOf(await handler(message))
      onHandled(result.status === 'ok' ? 'handled' : 'refused', message.id)
      return result
    } catch (error) {
      onHandled('refused', message.id)
      return failedResult(messageOf(error))
    }
  }

  function handlerOf(messageClass: string): Handler | undefined {
    const { handlers } = options
    if (typeof handlers === 'function') return handlers
    return messageClass === 'USER' || messageClass === 'DIAGNOSTIC' || messageClass === 'RECOVERY'
      ? handlers[messageClass]
      : undefined
  }

  async function ask<T>(call: () => T | Promise<T>, otherwise: T): Promise<T> {
    let timer: Timer | undefined
    const late = new Promise<never>((_, reject) => {
      timer = options.clock.after(options.seenStoreTimeoutMs, () => reject(new Error('the store of seen ids does not answer')))
    })
    try {
      return await Promise.race([(async () => call())(), late])
    } catch (error) {
      options.onStoreFailure(messageOf(error))
      return otherwise
    } finally {
      timer?.cancel()
    }
  }

  return {
    receive,
    async stop() {
      stopped = true
      for (const lane of lanes.values()) lane.queue.length = 0
      await Promise.all([...lanes.values()].map((lane) => lane.running))
    },
  }
}
