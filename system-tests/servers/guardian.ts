import { spawn } from 'node:child_process'
import { openSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import process from 'node:process'
import type { GuardianOrder, GuardianReport } from './guarded-process.ts'

// A process of its own between a test run and one server. Its parent may die in any way, SIGKILL included: the kernel
// then closes the channel between them, and the guardian kills the server. Started by guarded-process.ts only.

let orphaned = false

process.once('message', (order: GuardianOrder) => {
  const log = openSync(order.logFile, 'a')
  const server = spawn(order.command, order.args, { cwd: order.folder, env: order.env, stdio: ['ignore', log, log] })

  server.once('error', (error) => leave({ kind: 'failed', message: error.message }))
  server.once('spawn', () => {
    // The parent may have gone while the server was being started.
    if (orphaned) server.kill('SIGKILL')
    else report({ kind: 'started', pid: server.pid ?? 0 })
  })
  server.once('exit', async (code, signal) => {
    if (orphaned && order.removeWhenOrphaned !== undefined) {
      // Servers of one run share the folder: what another one still holds is left for that one's guardian.
      await rm(order.removeWhenOrphaned, { recursive: true, force: true, maxRetries: 10 }).catch(() => undefined)
    }
    leave({ kind: 'ended', code, signal })
  })

  const abandon = () => {
    orphaned = true
    server.kill('SIGKILL')
  }
  process.once('disconnect', abandon)
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, abandon)
})

// Before an order has come there is nothing to guard.
process.once('disconnect', () => {
  if (process.listenerCount('message') > 0) process.exit(0)
})

function report(message: GuardianReport): void {
  // A parent that has gone needs no report; the disconnect handler has done the work.
  if (process.connected) process.send?.(message, () => undefined)
}

function leave(last: GuardianReport): void {
  if (!process.connected) process.exit(0)
  process.send?.(last, () => process.exit(0))
}
