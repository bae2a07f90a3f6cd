import { createServer, Metadata } from 'nice-grpc'
import { expect, test } from 'vitest'
import { ReceiptServiceDefinition } from '../gen/push/internal/v1/receipts.ts'
import { deadlineInterceptor, remainingCallMs } from './call-deadline.ts'
import { systemClock } from './clock.ts'
import { connectGrpc } from './grpc-client.ts'
import { silentLog } from './log.ts'

test('a handler sees the deadline of its caller, and none where none was set, whatever the metadata claims', async () => {
  const seen: (number | undefined)[] = []
  const server = createServer({ interceptors: [deadlineInterceptor] })
  server.add(ReceiptServiceDefinition, {
    async get(_request, context) {
      seen.push(remainingCallMs(context, systemClock.now()))
      return {}
    },
    async record() {
      throw new Error('not called')
    },
  })
  const port = await server.listen('127.0.0.1:0')
  const connection = connectGrpc({ addresses: `127.0.0.1:${port}`, log: silentLog, clock: systemClock })
  try {
    const client = connection.client(ReceiptServiceDefinition)
    await client.get({}, { deadlineMs: 60_000 })
    await client.get({}, { metadata: Metadata({ 'push-call-deadline-ms': '1' }) })
  } finally {
    connection.close()
    await server.shutdown()
  }
  expect(seen[0]).toBeGreaterThan(30_000)
  expect(seen[0]).toBeLessThanOrEqual(60_000)
  expect(seen[1]).toBeUndefined()
})
