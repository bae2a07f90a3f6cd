import { errors } from 'cassandra-driver'
import { expect, test } from 'vitest'
import { PushError } from '../../service-kit/errors.ts'
import { failureOf, storeErrorOf } from './errors.ts'

const timeout = new errors.OperationTimedOutError('The host 10.0.0.1:9042 did not reply before timeout 6000 ms', '10.0.0.1:9042')
const response = (code: number) => new errors.ResponseError(code, 'words of the server')
const noHost = (inner: Record<string, unknown>) => new errors.NoHostAvailableError(inner)

test.each([
  ['a timeout of the client', timeout, 'timeout'],
  ['a read timeout of the server', response(0x1200), 'timeout'],
  ['a write timeout of the server', response(0x1100), 'timeout'],
  ['too few replicas', response(0x1000), 'unavailable'],
  ['an overloaded server', response(0x1001), 'overloaded'],
  ['a busy connection', new errors.BusyConnectionError('10.0.0.1', 2048, 1), 'overloaded'],
  ['a refused connection', Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }), 'unavailable'],
  ['a pool without connections', new Error('No connection available'), 'no_host'],
  ['a pool that is closed', new Error('Connection closed'), 'no_host'],
  ['no host, one of which timed out', noHost({ a: response(0x1000), b: timeout }), 'timeout'],
  ['no host, nested', noHost({ a: noHost({ b: timeout }) }), 'timeout'],
  ['no host, all unavailable', noHost({ a: response(0x1000), b: response(0x1000) }), 'unavailable'],
  ['no host, all marked down', noHost({}), 'no_host'],
  ['no host, without any inner errors', noHost(undefined as unknown as Record<string, unknown>), 'no_host'],
])('%s is trouble of the store, never a verdict about the device', (_what, error, failure) => {
  expect(failureOf(error)).toBe(failure)
  const told = storeErrorOf(error)
  expect(told).toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  expect(told instanceof PushError && told.message).toBe(
    'the registry storage does not answer; what was asked for may have happened',
  )
})

test('the log sees what every host said', () => {
  const told = storeErrorOf(noHost({ '10.0.0.1:9042': response(0x1000), '10.0.0.2:9042': timeout }))
  const cause = told instanceof PushError ? told.cause : undefined
  expect(cause instanceof Error && cause.message).toBe(
    'no host answered (10.0.0.1:9042: words of the server; 10.0.0.2:9042: The host 10.0.0.1:9042 did not reply before timeout 6000 ms)',
  )
})

test.each([
  ['a statement that is wrong', response(0x2200)],
  ['a statement that is no CQL', response(0x2000)],
  ['a defect of ours', new TypeError('value 3 is undefined')],
])('%s stays the defect that it is', (_what, error) => {
  expect(failureOf(error)).toBe('defect')
  expect(storeErrorOf(error)).toBe(error)
})
