import { setTimeout as delay } from 'node:timers/promises'
import type { Random } from '../service-kit/random.ts'
import { type CheckCounts, type CheckOptions, check, unfinished, unsettled } from './checker.ts'
import type { Fleet } from './fleet/fleet.ts'
import type { Plane } from './plane/plane.ts'
import type { Outgoing, Publisher } from './plane/publisher.ts'
import { readRest } from './rest.ts'
import type { PublishedMessage, Rest, Story } from './story.ts'

/** A plane under load: its parts, and everything that is seen of it. */
export interface Run {
  readonly plane: Plane
  readonly fleet: Fleet
  readonly publisher: Publisher
}

export function storyOf({ plane, fleet, publisher }: Run, rest?: Rest): Story {
  return { published: publisher.published, devices: fleet.logs, settled: plane.settled(), rest }
}

/** Waits until every accepted message is with its device or ended, and routers have said so. What is missing then is the checker's to tell. */
export async function untilSettled(run: Run, timeoutMs: number): Promise<void> {
  await until(() => unfinished(storyOf(run)).length === 0 && unsettled(storyOf(run)).length === 0, timeoutMs)
}

/** Waits until every accepted message is with its device or ended. For runs in which a router dies with what it could have told. */
export async function untilFinished(run: Run, timeoutMs: number): Promise<void> {
  await until(() => unfinished(storyOf(run)).length === 0, timeoutMs)
}

/** Resolves as soon as it holds, and after `timeoutMs` at the latest. Says whether it held. */
export async function until(holds: () => boolean, timeoutMs: number): Promise<boolean> {
  const giveUpAt = Date.now() + timeoutMs
  while (!holds()) {
    if (Date.now() > giveUpAt) return false
    await delay(100)
  }
  return true
}

/**
 * Asks the plane what became of everything, checks the run and says on standard error how it went. Throws with the first violations, the seed
 * and the logs' ends. To be called when the load is over and every device that comes back has done so.
 */
export async function checkRun(title: string, seed: number, run: Run, options?: CheckOptions): Promise<CheckCounts> {
  const story = storyOf(run, await readRest(run))
  const { violations, counts } = check(story, options)
  const late = await run.plane.metricSum('edges', 'push_edge_belt_flush_found_total')
  process.stderr.write(`${title} (seed ${seed}): ${JSON.stringify(counts)} ${delays(story)}\n`)
  if (late > 0) throw new Error(`${late} messages were found only by the look that should find nothing; ${run.plane.lastWords()}`)
  if (violations.length > 0) {
    const shown = violations.slice(0, 20)
    const sentences = shown.join('\n')
    const particulars = run.plane.mentions(shown.flatMap(idsIn)).join('\n')
    const spans = run.fleet.logs
      .filter(({ deviceId }) => shown.some((sentence) => idsIn(sentence).includes(deviceId)))
      .map((log) => JSON.stringify({ deviceId: log.deviceId, sessions: log.processes.flatMap(({ sessions }) => sessions) }))
      .join('\n')
    // The sentences come last as well: where output is cut, its end is what is left.
    throw new Error(
      `${violations.length} violations with seed ${seed}; ${JSON.stringify(counts)}\n${sentences}\n${run.plane.lastWords()}\n${spans}\n${particulars}\n${sentences}`,
    )
  }
  return counts
}

/** Names of devices, sessions and messages in a sentence of the checker. */
function idsIn(sentence: string): string[] {
  return sentence.match(/device-\d+|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![\w-])[\w-]{22}(?![\w-])/g) ?? []
}

/** How long messages took from acceptance to their handler. For people to compare: on a busy machine it proves nothing. */
function delays({ published, devices }: Story): string {
  const handledAt = new Map(
    devices.flatMap(({ processes }) => processes.flatMap(({ handled }) => handled.map((one) => [one.messageId, one.handledAt]))),
  )
  const calls = published.filter(({ answer }) => answer !== undefined)
  const sorted = [...Map.groupBy(calls, ({ answer }) => answer?.messageId).values()]
    // Of several calls for one message the first.
    .flatMap(([first]) => first ?? [])
    .flatMap(({ answer }) => (answer === undefined ? [] : (handledAt.get(answer.messageId) ?? Number.NaN) - answer.acceptTime))
    .filter((delayMs) => !Number.isNaN(delayMs))
    .sort((a, b) => a - b)
  const at = (share: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0)
  return `delay p50 ${at(0.5)} ms, p99 ${at(0.99)} ms, max ${at(1)} ms`
}

const priorities = ['HIGH', 'NORMAL', 'LOW'] as const

export interface LoadOptions {
  /** Publishers that work side by side; each waits for an answer before it sends its next message. */
  readonly publisherCount: number
  /** Device ids to choose from. */
  readonly deviceIds: readonly string[]
  /** How many routers there are to choose from. */
  readonly routerCount: number
  readonly random: Random
  /** Share of direct messages. Default 0.3. */
  readonly directShare?: number
  /** Time to live of most messages. Default 60,000. */
  readonly ttlMs?: number
  /** Share of messages with time to live 0. Default 0.05. */
  readonly nowOrNeverShare?: number
  /** Pause of a publisher after each answer, in ms. Default 20. */
  readonly pauseMs?: number
  /** Accounts to choose from. Default: none. */
  readonly accountIds?: readonly string[]
  /** Share of queued messages that are for an account. Default 0. */
  readonly accountShare?: number
}

/**
 * Publishes until `stop` is called, or until so many messages have been sent; resolves when every call has been answered. Of queued messages
 * one publisher sends several to the same device, one after the other, so that their order can be judged.
 */
export function startLoad(publisher: Publisher, options: LoadOptions, countMax = Number.POSITIVE_INFINITY) {
  const {
    publisherCount,
    deviceIds,
    routerCount,
    random,
    directShare = 0.3,
    ttlMs = 60_000,
    nowOrNeverShare = 0.05,
    pauseMs = 20,
    accountIds = [],
    accountShare = 0,
  } = options
  const pick = <T>(choices: readonly T[]): T => {
    const choice = choices[Math.floor(random.next() * choices.length)]
    if (choice === undefined) throw new Error('nothing to choose from')
    return choice
  }
  let stopped = false
  let count = 0

  async function work(): Promise<void> {
    while (!stopped && count < countMax) {
      const direct = random.next() < directShare
      const toAccount = !direct && random.next() < accountShare
      const outgoing: Outgoing = {
        ...(toAccount ? { deviceId: '', accountId: pick(accountIds) } : { deviceId: pick(deviceIds) }),
        mode: direct ? 'DIRECT' : 'QUEUED',
        priority: pick(priorities),
        ttlMs: random.next() < nowOrNeverShare ? 0 : ttlMs,
      }
      const burst = direct ? 1 : 1 + Math.floor(random.next() * 4)
      for (let sent = 0; sent < burst && count < countMax; sent++) {
        count++
        await publisher.publish(Math.floor(random.next() * routerCount), outgoing)
      }
      await delay(pauseMs)
    }
  }

  const done = Promise.all(Array.from({ length: publisherCount }, work))
  return {
    done,
    async stop(): Promise<void> {
      stopped = true
      await done
    },
  }
}

/**
 * Calls that have failed, but for those that were told one of these statuses: what a caller may be told while parts are away, and repeat. Without
 * any, for a run in which no call may fail.
 */
export function failures(
  published: readonly PublishedMessage[],
  besides: readonly ('UNAVAILABLE' | 'DEADLINE_EXCEEDED')[] = [],
): string[] {
  return published.flatMap(({ key, failure }) =>
    failure === undefined || besides.some((status) => failure.startsWith(`${status} `)) ? [] : `${key}: ${failure}`,
  )
}
