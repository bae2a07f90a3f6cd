import { expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { metricValue } from '../service-kit/testing/metric-value.ts'
import { recordingLog } from '../service-kit/testing/recording-log.ts'
import { startLocalPlane } from './local-plane.ts'

/** Connects as the device, and waits for `welcome`. */
async function connect(deviceAddress: string) {
  const headers = { authorization: 'Bearer dev:shared' }
  const webSocket = new WebSocket(`ws://${deviceAddress}/v1/connect`, ['push.v1.json'], { headers })
  const closed = new Promise<number>((resolve) => webSocket.on('close', (code) => resolve(code)))
  webSocket.on('error', () => {})
  await new Promise<void>((resolve) => webSocket.once('message', () => resolve()))
  return { webSocket, closed }
}

test('two devices under one id on ever other edges: the newest wins each time, from the sixth change on the replaced one is told 4006, it is reported, and nobody is locked out', async () => {
  const log = recordingLog()
  const { edges, closers } = await startLocalPlane({ edgeCount: 3, log })
  try {
    const codes: number[] = []
    let holder = await connect(edges[0]?.deviceAddress ?? '')
    // No edge sees more than two changes in three; together they see all.
    for (let change = 1; change <= 8; change++) {
      const next = await connect(edges[change % edges.length]?.deviceAddress ?? '')
      codes.push(await holder.closed)
      holder = next
    }
    expect(codes).toEqual([4005, 4005, 4005, 4005, 4005, 4006, 4006, 4006])
    expect(holder.webSocket.readyState).toBe(WebSocket.OPEN)
    holder.webSocket.close()
    await holder.closed
    const reports = log.withPhrase('two devices seem to use one identity')
    expect(reports.map(({ level, facts }) => [level, facts.device_id, facts.takeovers])).toEqual([
      ['warn', 'shared', 6],
      ['warn', 'shared', 7],
      ['warn', 'shared', 8],
    ])
    const counted = await Promise.all(edges.map(({ metrics }) => metricValue(metrics, 'push_edge_duplicate_identities_total')))
    expect(counted.reduce<number>((sum, count) => sum + (count ?? 0), 0)).toBe(3)
  } finally {
    await closers.close({ graceMs: 20_000 })
  }
}, 240_000)
