import { ClientError, ServerError, Status } from 'nice-grpc'
import { describe, expect, test as plainTest } from 'vitest'
import { ErrorReason } from '../gen/push/v1/errors.ts'
import { callerMessage, decodeErrorDetails, encodeErrorDetails } from './error-details.ts'
import { callErrorOf, errorDetailsLimitBytes, errorMessageLimitBytes, PushError, statusByReason } from './errors.ts'
import { EchoDefinition } from './testing/echo-service.ts'
import { test } from './testing/grpc-fixture.ts'
import { metricValue } from './testing/metric-value.ts'

plainTest('every reason of the contract has a status, and no other', () => {
  const reasons = Object.keys(ErrorReason).filter((reason) => reason !== 'UNSPECIFIED')
  expect(Object.keys(statusByReason).sort()).toEqual(reasons.sort())
  expect(Object.values(statusByReason)).not.toContain(Status.OK)
})

describe('a failed call', () => {
  test('tells its client reason, message, metadata, fields and when to come back', async ({ grpc }) => {
    const server = await grpc.serve({
      unary: () => {
        throw new PushError(
          'RATE_EXCEEDED',
          'device d-1 gets too many messages; wait',
          { device_id: 'd-1' },
          {
            violations: [{ field: 'message.ttl', description: 'at most 30 days' }],
            retryAfterMs: 1500,
            cause: new Error('bucket 17 ran dry'),
          },
        )
      },
    })
    const error = await grpc
      .connect(server.address)
      .client(EchoDefinition)
      .unary({ text: '' })
      .catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(ClientError)
    expect(callErrorOf(error)).toEqual({
      status: Status.RESOURCE_EXHAUSTED,
      reason: 'RATE_EXCEEDED',
      message: 'device d-1 gets too many messages; wait',
      metadata: { device_id: 'd-1' },
      violations: [{ field: 'message.ttl', description: 'at most 30 days' }],
      retryAfterMs: 1500,
    })
    // The cause is for the log only.
    expect(grpc.log.withPhrase('call failed')[0]?.facts).toMatchObject({
      reason: 'RATE_EXCEEDED',
      cause: { message: 'bucket 17 ran dry' },
    })
    expect(
      await metricValue(grpc.metrics, 'push_grpc_server_failures_total', { method: '/test.Echo/Unary', reason: 'RATE_EXCEEDED' }),
    ).toBe(1)
  })

  test('on a stream tells the same', async ({ grpc }) => {
    const server = await grpc.serve({
      async *serverStream() {
        yield { text: 'first' }
        throw new PushError('EDGE_RESTARTED', 'this process is not edge e-1', { edge_id: 'e-1' })
      },
    })
    const received: string[] = []
    const reading = (async () => {
      for await (const { text } of grpc.connect(server.address).client(EchoDefinition).serverStream({ text: '' }))
        received.push(text)
    })()
    const error = await reading.catch((thrown: unknown) => thrown)
    expect(received).toEqual(['first'])
    expect(callErrorOf(error)).toMatchObject({
      status: Status.FAILED_PRECONDITION,
      reason: 'EDGE_RESTARTED',
      metadata: { edge_id: 'e-1' },
    })
  })

  test('that failed by a defect tells a fixed sentence; the log has the defect', async ({ grpc }) => {
    const server = await grpc.serve({
      unary: () => {
        throw new TypeError('password "hunter2" is not iterable')
      },
    })
    const error = await grpc
      .connect(server.address)
      .client(EchoDefinition)
      .unary({ text: '' })
      .catch((thrown: unknown) => thrown)
    expect(callErrorOf(error)).toMatchObject({ status: Status.INTERNAL, reason: 'INTERNAL' })
    expect(String(error)).not.toContain('hunter2')
    expect(grpc.log.withPhrase('call failed by a defect')[0]?.facts).toMatchObject({ cause: { name: 'TypeError' } })
  })

  test('with a bare status keeps it', async ({ grpc }) => {
    const server = await grpc.serve({
      unary: () => {
        throw new ServerError(Status.ALREADY_EXISTS, 'there is one')
      },
    })
    const error = await grpc
      .connect(server.address)
      .client(EchoDefinition)
      .unary({ text: '' })
      .catch((thrown: unknown) => thrown)
    expect(callErrorOf(error)).toMatchObject({ status: Status.ALREADY_EXISTS, reason: undefined, message: 'there is one' })
  })

  test('with the longest of everything still reaches its client', async ({ grpc }) => {
    const server = await grpc.serve({
      unary: () => {
        const violations = Array.from({ length: 500 }, (_, index) => ({ field: `f${index}`, description: 'ü'.repeat(100) }))
        throw new PushError(
          'INVALID_MESSAGE',
          'ü'.repeat(5000),
          { big: 'x'.repeat(1000), bigger: 'x'.repeat(5000) },
          { violations },
        )
      },
    })
    const error = await grpc
      .connect(server.address)
      .client(EchoDefinition)
      .unary({ text: '' })
      .catch((thrown: unknown) => thrown)
    const failure = callErrorOf(error)
    expect(failure).toMatchObject({ status: Status.INVALID_ARGUMENT, reason: 'INVALID_MESSAGE' })
    expect(failure.message).toMatch(/^ü+…$/)
  })
})

describe('details', () => {
  plainTest('stay within their bounds by leaving out violations first, then metadata', () => {
    const violations = Array.from({ length: 100 }, (_, index) => ({ field: `field${index}`, description: 'is wrong' }))
    const encoded = encodeErrorDetails(new PushError('INVALID_MESSAGE', 'wrong', { device_id: 'd' }, { violations }))
    expect(encoded.length).toBeLessThanOrEqual(errorDetailsLimitBytes)
    const decoded = decodeErrorDetails(encoded)
    expect(decoded?.metadata).toEqual({ device_id: 'd' })
    expect(decoded?.violations.length).toBeGreaterThan(10)
    expect(decoded?.violations).toEqual(violations.slice(0, decoded?.violations.length))
  })

  plainTest('and message are at most 4 KB on the wire, whatever the language', () => {
    const message = callerMessage('語'.repeat(1000))
    expect(Buffer.byteLength(message)).toBeLessThanOrEqual(errorMessageLimitBytes)
    const base64 = Buffer.alloc(errorDetailsLimitBytes).toString('base64')
    expect(encodeURIComponent(message).length + base64.length).toBeLessThanOrEqual(4096)
  })

  plainTest('that are broken are no details', () => {
    expect(decodeErrorDetails(Buffer.from([0x1a, 0x7f]))).toBeUndefined()
    expect(decodeErrorDetails(new Uint8Array())).toMatchObject({ reason: undefined })
  })
})

plainTest('errors that are no call errors are read too', () => {
  expect(callErrorOf(new PushError('DRAINING', 'leaving'))).toMatchObject({ status: Status.UNAVAILABLE, reason: 'DRAINING' })
  expect(callErrorOf(AbortSignal.abort().reason)).toMatchObject({ status: Status.CANCELLED, reason: undefined })
  expect(callErrorOf(new Error('odd'))).toMatchObject({ status: Status.UNKNOWN, message: 'odd' })
})
