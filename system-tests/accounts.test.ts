import { expect, test } from 'vitest'
import { comeBackTimeoutMs, expectFewRefused, seed, settleTimeoutMs, startRun, testTimeoutMs } from './fault-run.ts'
import { expectNoOrphans } from './orphans.ts'
import { checkRun, until, untilSettled } from './run.ts'
import { indexOf } from './story-index.ts'

test(
  'messages to accounts, while devices change from one to another: one outcome at each device, and no device shows what is meant for an account that it has left',
  async () => {
    const accountIds = Array.from({ length: 8 }, (_, index) => `account-${index + 1}`)
    const { plane, fleet, run, load, publisher } = await startRun({
      registryCount: 2,
      routerCount: 2,
      edgeCount: 3,
      deviceCount: 80,
      accountIds,
    })
    // Each message to an account is for ten devices and more.
    const running = load({ publisherCount: 4, directShare: 0.2, accountIds, accountShare: 0.5, pauseMs: 100, ttlMs: 600_000 })
    const stopMoving = fleet.move({ meanStayMs: 5_000, changesAccountShare: 0.7 })
    const ofAccounts = () => indexOf({ published: publisher.published, devices: fleet.logs, settled: plane.settled() })
    const shownTo = ({ accepted, handlings }: ReturnType<typeof ofAccounts>) =>
      accepted.filter((message) => message.accountId !== undefined && handlings(message).length > 0)
    /** As in life, several devices show one message. */
    const shownToMany = (shown: ReturnType<typeof shownTo>) =>
      [...Map.groupBy(shown, ({ answer }) => answer.messageId).values()].filter((devices) => devices.length > 3).length
    const changes = () =>
      fleet.logs.reduce((sum, { processes }) => sum + new Set(processes.map((one) => one.accountId)).size - 1, 0)
    // Enough has happened for the promise to be put to the test: messages were shown, refused, and lay in an inbox meanwhile.
    const isEnough = () => {
      const settled = plane.settled()
      const shown = shownTo(ofAccounts())
      return (
        changes() > 40 &&
        settled.filter(({ reason }) => reason === 'ACCOUNT_MISMATCH').length > 20 &&
        settled.filter(({ state }) => state === 'STORED').length > 20 &&
        shown.length > 200 &&
        shownToMany(shown) > 20
      )
    }
    expect(await until(isEnough, 90_000)).toBe(true)
    await running.stop()
    await stopMoving()
    await fleet.allConnected(comeBackTimeoutMs)
    await untilSettled(run, settleTimeoutMs)
    await expectNoOrphans(run)
    await untilSettled(run, settleTimeoutMs)

    const counts = await checkRun('accounts', seed, run)
    expectFewRefused(publisher.published)
    // What has not come was for devices that had gone to another account.
    expect(Object.keys(counts.undelivered).filter((how) => how !== 'DROPPED ACCOUNT_MISMATCH')).toEqual([])
  },
  testTimeoutMs,
)
