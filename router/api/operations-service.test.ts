import { describe, expect, test } from 'vitest'
import { type CloseSession, CloseSessionResult } from '../../gen/push/internal/v1/edge.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import type { CloseAnswer } from '../dispatch/link.ts'
import { createOperationsService, type OperationsServiceOptions } from './operations-service.ts'

/** A service whose look-ups find rows on these edges, which answer a close so. */
function serviceWith(answerByEdge: Record<string, CloseAnswer>) {
  const closes: unknown[] = []
  const log = recordingLog()
  const rows = Object.keys(answerByEdge).map((edgeId, index) => ({ edgeId, sessionId: `s${index}`, deviceId: 'tv-1' }))
  const options = {
    registry: { client: () => ({}) },
    lookups: { find: async () => ({ routes: rows.map((row) => ({ row })) }) },
    links: {
      to: ({ edgeId }: { edgeId: string }) => ({
        async closeSession(close: Partial<CloseSession>, timeoutMs: number) {
          closes.push({ edgeId, ...close, timeoutMs })
          return answerByEdge[edgeId]
        },
      }),
    },
    deadLetters: {},
    log,
  } as unknown as OperationsServiceOptions
  const disconnect = async (reason = '') =>
    createOperationsService(options).disconnectDevice({ deviceId: 'tv-1', reason }, {} as never)
  return { closes, log, disconnect }
}

describe('disconnecting a device', () => {
  test('closes each of its sessions at its edge, whatever their order, and says how many there were', async () => {
    const { closes, log, disconnect } = serviceWith({
      a: CloseSessionResult.CLOSED,
      b: CloseSessionResult.REMEMBERED,
      c: CloseSessionResult.NOT_CONNECTED,
    })
    expect(await disconnect('lost')).toEqual({ closedCount: 2, unansweredCount: 0 })
    expect(closes).toMatchObject([
      { edgeId: 'a', deviceId: 'tv-1', sessionId: 's0', reason: 2, detail: 'lost' },
      { edgeId: 'b', sessionId: 's1' },
      { edgeId: 'c', sessionId: 's2' },
    ])
    expect(log.withPhrase('device disconnected by operator')).toMatchObject([{ facts: { device_id: 'tv-1', reason: 'lost' } }])
  })

  test('an edge that does not answer may still hold the device; one that is gone holds nobody', async () => {
    expect(await serviceWith({ a: 'unanswered', b: 'gone' }).disconnect()).toEqual({ closedCount: 0, unansweredCount: 1 })
  })

  test('a reason of more than 100 characters is refused, and nothing is closed', async () => {
    const { closes, disconnect } = serviceWith({ a: CloseSessionResult.CLOSED })
    await expect(disconnect('x'.repeat(101))).rejects.toMatchObject({ reason: 'INVALID_REQUEST' })
    expect(closes).toEqual([])
  })
})
