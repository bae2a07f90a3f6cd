import { ConfirmLevel } from '../../gen/push/v1/message.ts'
import type { Clock } from '../../service-kit/clock.ts'
import type { Outgoing, Publisher, TestPayload } from '../plane/publisher.ts'
import type { PublishedMessage } from '../story.ts'
import type { SimulatedDevice } from './simulated-device.ts'
import type { World } from './world.ts'

interface LoadOptions {
  readonly world: World
  readonly publisher: Publisher
  readonly devices: readonly SimulatedDevice[]
  readonly routerCount: number
  readonly endsAtMs: number
  readonly clock: Clock
}

const priorities = ['HIGH', 'NORMAL', 'LOW'] as const
/** Longer than any fault lasts. */
const longMs = 60_000
const accounts = ['account-a', 'account-b'] as const

/** Publishes all kinds of messages until it is time to end. */
export function startLoad({ world, publisher, devices, routerCount, endsAtMs, clock }: LoadOptions) {
  const besides = new Set<PublishedMessage>()
  let working = 0

  async function work(): Promise<void> {
    while (world.time.now < endsAtMs) {
      const direct = world.chance(0.25)
      const forAccount = !direct && world.chance(0.15)
      const { deviceId } = world.pick(devices)
      const router = Math.floor(world.random.next() * routerCount)
      const more: NonNullable<Outgoing['more']> = {}
      if (forAccount) more.target = { $case: 'accountId', value: world.pick(accounts) }
      if (world.chance(0.1)) more.collapseKey = 'news'
      if (world.chance(0.1)) more.confirm = ConfirmLevel.RESULT
      const keyed = !direct && world.chance(0.25)
      if (keyed) more.idempotencyKey = `key-${publisher.published.length}`
      const outgoing: Outgoing = {
        deviceId,
        mode: direct ? 'DIRECT' : 'QUEUED',
        priority: world.pick(priorities),
        ttlMs: world.pick([0, 3_000, longMs, longMs, longMs, longMs]),
        more,
      }
      const burst = direct || keyed ? 1 : world.count(1, 3)
      for (let sent = 0; sent < burst; sent++) {
        const entry = await publisher.publish(router, outgoing)
        // What goes to an account, and what may give way to a newer version, is judged by rules of its own.
        if (forAccount || more.collapseKey !== undefined || more.confirm !== undefined) besides.add(entry)
        if (keyed && (entry.failure !== undefined || world.chance(0.3))) await repeat(entry, outgoing)
      }
      await clock.sleep(world.between(100, 1_500))
    }
  }

  /** The same message, through whichever router. */
  async function repeat(entry: PublishedMessage, outgoing: Outgoing): Promise<void> {
    const payload: TestPayload = { key: entry.key, to: entry.deviceId }
    const more = { ...outgoing.more, payload: Buffer.from(JSON.stringify(payload)) }
    const again = await publisher.publish(Math.floor(world.random.next() * routerCount), { ...outgoing, more })
    besides.add(again)
    if (entry.answer !== undefined || again.answer === undefined) return
    // Accepted after all, under the same id.
    entry.answer = again.answer
    delete entry.failure
  }

  for (let at = 0; at < 2; at++) {
    working++
    void work().finally(() => working--)
  }

  return {
    get done() {
      return working === 0
    },
    /** How a message is to be judged. `brief`: a fault may cost it all its time. `apart`: by rules of its own. */
    judgementOf(message: PublishedMessage): 'strict' | 'brief' | 'now or never' | 'apart' {
      if (besides.has(message)) return 'apart'
      if (message.ttlMs === 0) return 'now or never'
      return message.ttlMs < longMs ? 'brief' : 'strict'
    },
    /** What is wrong with messages to accounts. */
    violations: (all: readonly SimulatedDevice[]): string[] => {
      const handlings = all.flatMap(({ accountHandlings }) => accountHandlings)
      const foreign = handlings.filter(({ deviceAccount, target }) => target !== `account/${deviceAccount}`)
      const timesHandled = Map.groupBy(
        handlings,
        ({ process, messageId }) => `${process} has handled account message ${messageId}`,
      )
      return [
        ...foreign.map(
          ({ deviceId, messageId, deviceAccount, target }) =>
            `${deviceId} of account "${deviceAccount}" has handled ${messageId}, which was for ${target}`,
        ),
        ...[...timesHandled].filter(([, times]) => times.length > 1).map(([words, times]) => `${words} ${times.length} times`),
      ]
    },
  }
}
