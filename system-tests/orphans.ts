import { expect } from 'vitest'
import type { Run } from './run.ts'
import type { DeviceLog } from './story.ts'

/** So long after a message was sent to its device a row of a session that has ended may count. */
const orphanTimeoutMs = 60_000

/**
 * Sends a message to each device of the fleet; within a minute the plane then knows each as it is: of one with a session the newest row is that session's and
 * the plane names it; one without a session does not count as connected. To be called when the fleet has come to rest.
 */
export async function expectNoOrphans({ plane, fleet, publisher }: Run): Promise<void> {
  const router = plane.routers.findIndex(({ running }) => running)
  await Promise.all(
    fleet.devices.map(({ deviceId }) =>
      publisher.publish(router, { deviceId, mode: 'QUEUED', priority: 'HIGH', ttlMs: 600_000 }),
    ),
  )
  const problems = async () => {
    const rows = await plane.sessionRows()
    const found = await Promise.all(
      fleet.logs.map(async (log) => {
        const { connected, sessionId } = await publisher.readDevice(router, log.deviceId)
        return orphanProblem(log, rows.get(log.deviceId) ?? [], connected ? sessionId : undefined)
      }),
    )
    return found.filter((problem) => problem !== undefined)
  }
  await expect.poll(problems, { timeout: orphanTimeoutMs, interval: 500 }).toEqual([])
}

/** What is wrong with a device whose sessions have these rows, newest first, and that counts as having the session `named`, or none. */
export function orphanProblem(log: DeviceLog, rows: readonly string[], named: string | undefined): string | undefined {
  const sessions = log.processes.flatMap((process) => process.sessions)
  const open = sessions.filter(({ endedAt }) => endedAt === undefined).map(({ sessionId }) => sessionId)
  const [newest] = rows
  if (open.length === 0) return named === undefined ? undefined : `${log.deviceId} is away, but counts as having session ${named}`
  if (open.length > 1) return `${log.deviceId} has the open sessions ${open.join(', ')}`
  const [live] = open
  if (newest !== live) return `${log.deviceId} has session ${live}, but its newest row is that of ${newest}`
  return named === live ? undefined : `${log.deviceId} has session ${live}, but counts as having ${named ?? 'none'}`
}
