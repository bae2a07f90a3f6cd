import { Metadata } from 'nice-grpc-common'
import { describe, expect, test } from 'vitest'
import { Message, MessageClass, Priority } from '../../gen/push/v1/message.ts'
import type { OperationsServiceImplementation } from '../../gen/push/v1/operations.ts'
import { anonymous, type Caller } from '../../service-kit/caller.ts'
import { PushError } from '../../service-kit/errors.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import type { OperatorCall } from '../audit/acts.ts'
import { checkMessage } from './message-check.ts'
import { guardOperations, operationsByCall } from './operator-actions.ts'
import { createPermissions } from './permissions.ts'
import { type Policy, parsePolicy } from './policy-file.ts'

const clock = new SteeredClock()
const policy = parsePolicy(
  `principals:
    billing: { publish: { classes: [USER], devices: [tv-1, "box-*"], ttl_max: 1h } }
    news: { publish: { classes: [USER], accounts: ["*"], priorities: [NORMAL] } }
    anna: { operations: [edges.read, devices.disconnect, messages.read] }`,
  'policy',
)
const caller = (principal: string, more: Partial<Caller> = {}): Caller => ({
  principal,
  roles: ['publisher'],
  edgeNames: [],
  shown: 'certificate',
  expiresAtMs: undefined,
  ...more,
})
const message = (more: Partial<Message>) =>
  checkMessage(Message.fromPartial({ target: { $case: 'deviceId', value: 'tv-1' }, ...more }))
const device = (value: string) => message({ target: { $case: 'deviceId', value } })
const account = (value: string) => message({ target: { $case: 'accountId', value } })

/** What refuses, as reason and words; undefined when it is allowed. */
function refusal(who: Caller, what: ReturnType<typeof message>, by: Policy | undefined = policy) {
  try {
    createPermissions(() => by, clock).requirePublish(who, what)
    return undefined
  } catch (error) {
    if (!(error instanceof PushError)) throw error
    return `${error.reason}: ${error.message}`
  }
}

describe('publishing', () => {
  const billing = caller('billing')
  test('is allowed as far as the policy says', () => {
    expect(refusal(billing, device('tv-1'))).toBeUndefined()
    expect(refusal(billing, device('box-77'))).toBeUndefined()
    expect(refusal(billing, message({ priority: Priority.LOW, ttl: { seconds: 0, nanos: 0 } }))).toBeUndefined()
    expect(refusal(caller('news'), account('anna'))).toBeUndefined()
  })

  test.each([
    ['another device', device('tv-2'), 'PERMISSION_MISSING: billing may not publish to device tv-2'],
    ['a longer name than an exact one', device('tv-11'), 'PERMISSION_MISSING: billing may not publish to device tv-11'],
    ['accounts', account('tv-1'), 'PERMISSION_MISSING: billing may not publish to account tv-1'],
    [
      'another class',
      message({ messageClass: MessageClass.RECOVERY }),
      'CLASS_FORBIDDEN: billing may not publish messages of class RECOVERY',
    ],
    ['another priority', message({ priority: Priority.HIGH }), 'PERMISSION_MISSING: billing may not publish at priority HIGH'],
    [
      'a longer life',
      message({ ttl: { seconds: 3_601, nanos: 0 } }),
      'PERMISSION_MISSING: billing may not publish with a time to live of 3601 s; at most 3600 s',
    ],
  ])('is refused for %s', (_what, given, words) => {
    expect(refusal(billing, given)).toBe(words)
  })

  test('who is not in the policy, or publishes nothing by it, is refused; without a policy nobody is', () => {
    expect(refusal(caller('stranger'), device('tv-1'))).toBe(
      'PERMISSION_MISSING: stranger may not publish anything: the policy does not say that it may',
    )
    expect(refusal(caller('anna', { roles: ['operator'] }), device('tv-1'))).toMatch(/^PERMISSION_MISSING/)
    expect(refusal(anonymous, device('tv-1'))).toMatch(/^PERMISSION_MISSING: anonymous/)
    const open = createPermissions(() => undefined, clock)
    expect(() => open.requirePublish(anonymous, message({ messageClass: MessageClass.RECOVERY }))).not.toThrow()
    expect(() => open.requireOperation(anonymous, 'edges.drain')).not.toThrow()
  })

  test('a token that has expired on an open stream publishes no more', () => {
    expect(refusal({ ...billing, expiresAtMs: clock.now() + 1 }, device('tv-1'))).toBeUndefined()
    expect(refusal({ ...billing, expiresAtMs: clock.now() }, device('tv-1'))).toBe('UNAUTHENTICATED: the token has expired')
  })

  test('the policy that is in force counts, also for who is there already', () => {
    let now: Policy = policy
    const permissions = createPermissions(() => now, clock)
    expect(permissions.publishProblem('billing', device('tv-1'))).toBeUndefined()
    now = new Map()
    expect(permissions.publishProblem('billing', device('tv-1'))).toContain('may not publish anything')
  })
})

describe('messages of others', () => {
  const { owns } = createPermissions(() => policy, clock)
  test('are for operators whom the policy lets; one’s own are one’s own', () => {
    expect(owns(caller('billing'), 'billing', 'messages.cancel')).toBe(true)
    expect(owns(caller('billing'), 'news', 'messages.read')).toBe(false)
    expect(owns(caller('anna', { roles: ['operator'] }), 'news', 'messages.read')).toBe(true)
    expect(owns(caller('anna', { roles: ['operator'] }), 'news', 'messages.cancel')).toBe(false)
    expect(owns(caller('anna'), 'news', 'messages.read')).toBe(false)
  })
})

describe('operations', () => {
  test('each takes its permission; what changes something is decided on record', async () => {
    const calls = Object.keys(operationsByCall) as OperatorCall[]
    const done: string[] = []
    const service = Object.fromEntries(
      calls.map((call) => [
        call,
        async () => {
          done.push(call)
          return {}
        },
      ]),
    ) as unknown as OperationsServiceImplementation
    const context = { caller: caller('anna', { roles: ['operator'] }), metadata: Metadata() } as never
    const decided: string[] = []
    const guarded = guardOperations(
      service,
      createPermissions(() => policy, clock),
      {
        async decide({ principal, action }, check) {
          decided.push(`${principal} ${action.split('/')[1]}`)
          await check()
        },
      },
    )
    const refused: string[] = []
    for (const call of calls) await Promise.resolve(guarded[call]({} as never, context)).catch(() => refused.push(call))
    expect(done).toEqual(['listEdges', 'getEdgeDrain', 'disconnectDevice'])
    expect(refused).toEqual(calls.filter((call) => !done.includes(call)))
    expect(decided).toEqual(
      ['DrainEdge', 'AbortEdgeDrain', 'DisconnectDevice', 'ReplayDeadLetters', 'PurgeDeadLetters'].map((name) => `anna ${name}`),
    )
  })
})
