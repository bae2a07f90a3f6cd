import { Metadata } from 'nice-grpc-common'
import { describe, expect, test } from 'vitest'
import { OperationsServiceDefinition, type OperationsServiceImplementation } from '../../gen/push/v1/operations.ts'
import type { Caller } from '../../service-kit/caller.ts'
import { PushError } from '../../service-kit/errors.ts'
import { type OperatorCall, operatorAct, operatorCalls } from '../audit/acts.ts'
import type { Act } from '../audit/audit-log.ts'
import { guardOperations, operationsByCall, recordDenied } from './operator-actions.ts'
import type { Permissions } from './permissions.ts'

const calls = Object.keys(OperationsServiceDefinition.methods) as OperatorCall[]
/** What only looks. Whoever adds a call here says that it changes nothing. */
const looking: OperatorCall[] = ['listEdges', 'getEdgeDrain', 'listDeadLetters', 'getDeadLetter']

/** Every call of the contract, on a service that notes what is done, behind an audit that notes what is recorded. */
function bench({ audit = 'works', allowed = true }: { audit?: 'works' | 'fails'; allowed?: boolean } = {}) {
  const happened: string[] = []
  const acts: Act[] = []
  const service = Object.fromEntries(
    calls.map((call) => [
      call,
      async (request: unknown) => {
        happened.push(`${call} done`)
        return { given: request }
      },
    ]),
  ) as unknown as OperationsServiceImplementation
  const decide = async (act: Act, check: () => void | Promise<void>) => {
    let refusal: unknown
    try {
      await check()
    } catch (error) {
      refusal = error
    }
    if (audit === 'fails' && !refusal) throw new PushError('AUDIT_UNAVAILABLE', 'full')
    acts.push(act)
    happened.push(`${act.action} recorded`)
    if (refusal) throw refusal
  }
  const permissions = {
    requireOperation() {
      if (!allowed) throw new PushError('PERMISSION_MISSING', 'no')
    },
  } as unknown as Permissions
  const guarded = guardOperations(service, permissions, { decide })
  const context = { caller: anna, metadata: Metadata() } as never
  const run = (call: OperatorCall, request: unknown = {}) => Promise.resolve(guarded[call](request as never, context))
  return { happened, acts, decide, run }
}

const anna: Caller = {
  principal: 'anna',
  roles: ['operator'],
  edgeNames: undefined,
  shown: 'certificate',
  expiresAtMs: undefined,
}

const actionOf = (call: OperatorCall) => `push.v1.OperationsService/${OperationsServiceDefinition.methods[call].name}`

test('every call of the contract is in the table, and what is said to look only is what does', () => {
  expect(Object.keys(operatorCalls).sort()).toEqual([...calls].sort())
  expect(Object.keys(operationsByCall).sort()).toEqual([...calls].sort())
  expect(calls.filter((call) => operatorCalls[call] === 'looks').sort()).toEqual([...looking].sort())
})

describe.each(calls)('%s', (call) => {
  const acting = !looking.includes(call)

  test('is recorded before it is done if it changes something, and passes on what it was given', async () => {
    const { happened, run } = bench()
    expect(await run(call, { edgeId: 'e1' })).toEqual({ given: { edgeId: 'e1' } })
    expect(happened).toEqual([...(acting ? [`${actionOf(call)} recorded`] : []), `${call} done`])
  })

  test('is not done when it may not be, and that is recorded', async () => {
    const { happened, run } = bench({ allowed: false })
    await expect(run(call)).rejects.toMatchObject({ reason: 'PERMISSION_MISSING' })
    expect(happened).toEqual(acting ? [`${actionOf(call)} recorded`] : [])
  })

  test('is not done when it cannot be recorded', async () => {
    const { happened, run } = bench({ audit: 'fails' })
    if (acting) await expect(run(call)).rejects.toMatchObject({ reason: 'AUDIT_UNAVAILABLE' })
    else await run(call)
    expect(happened).toEqual(acting ? [] : [`${call} done`])
  })
})

test('who is no operator and asks for an action is on record as well, and who only looks is not', async () => {
  const { acts, decide } = bench()
  const caller: Caller = { ...anna, principal: 'billing', roles: ['publisher'] }
  const error = new PushError('PERMISSION_MISSING', 'no')
  const path = (name: string) => `/push.v1.OperationsService/${name}`
  const denied = (name: string) => recordDenied({ decide }, { path: path(name), caller, request: { edgeId: 'e1' }, error })
  await denied('DrainEdge')
  await denied('ListEdges')
  await recordDenied({ decide }, { path: '/push.v1.PublishService/Publish', caller, request: {}, error })
  expect(acts).toMatchObject([{ principal: 'billing', action: 'push.v1.OperationsService/DrainEdge', target: 'edge/e1' }])
})

test('a record says on whom, why, and what else was asked for', () => {
  expect(operatorAct('ops', 'disconnectDevice', { deviceId: 'tv', reason: 'stolen' })).toEqual({
    principal: 'ops',
    action: 'push.v1.OperationsService/DisconnectDevice',
    target: 'device/tv',
    reason: 'stolen',
    detail: '{"deviceId":"tv"}',
  })
  expect(operatorAct('ops', 'drainEdge', { edgeId: 'e1' })).toMatchObject({ target: 'edge/e1', reason: '' })
  expect(operatorAct('ops', 'replayDeadLetters', { positions: ['0:1', '0:2'], dryRun: true })).toMatchObject({
    target: 'dead-letters',
    detail: '{"positions":["0:1","0:2"],"dryRun":true}',
  })
  expect(operatorAct('ops', 'listEdges', {})).toBeUndefined()
})
