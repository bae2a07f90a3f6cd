import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { MessageClass, Priority } from '../../gen/push/v1/message.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'
import { StartError } from '../../service-kit/start-error.ts'
import { SteeredClock } from '../../service-kit/testing/steered-clock.ts'
import { openPolicy } from './policy.ts'
import { parsePolicy } from './policy-file.ts'

const yaml = `
principals:
  billing:            # a service
    publish:
      classes: [USER]
      devices: [tv-1, "box-*"]
      ttl_max: 7d
  anna@example.org:
    publish: { classes: [USER, RECOVERY], accounts: ["*"], fan_out_max: 20, priorities: [HIGH] }
    operations: [devices.read, edges.drain]
`

test('YAML and JSON say the same; what is not named is not allowed, and priority HIGH has to be named', () => {
  const policy = parsePolicy(yaml, 'file')
  expect(policy.get('billing')).toEqual({
    publish: {
      classes: new Set([MessageClass.USER]),
      devices: ['tv-1', 'box-*'],
      accounts: [],
      fanOutMax: undefined,
      priorities: new Set([Priority.NORMAL, Priority.LOW]),
      ttlMaxMs: 7 * 86_400_000,
    },
    operations: new Set(),
  })
  expect(policy.get('anna@example.org')).toMatchObject({
    publish: { devices: [], accounts: ['*'], fanOutMax: 20, priorities: new Set([Priority.HIGH]), ttlMaxMs: 30 * 86_400_000 },
    operations: new Set(['devices.read', 'edges.drain']),
  })
  expect(policy.get('anna')).toBeUndefined()
  const json = '{"principals":{"a":{"publish":{"classes":["USER"]}}}}'
  expect(parsePolicy(json, 'file')).toEqual(parsePolicy('principals: { a: { publish: { classes: [USER] } } }', 'file'))
})

test.each([
  ['nothing', '', 'the file: '],
  ['no YAML', 'principals: [', 'neither YAML nor JSON'],
  ['a name twice', 'principals:\n  a: {}\n  a: {}\n', 'neither YAML nor JSON'],
  ['a key that is none', 'principals: { a: { publsh: {} } }', 'principals.a: '],
  ['a class that is none', 'principals: { a: { publish: { classes: [KING] } } }', 'principals.a.publish.classes.0: '],
  ['no class', 'principals: { a: { publish: { classes: [] } } }', 'principals.a.publish.classes: '],
  [
    'a star in the middle',
    'principals: { a: { publish: { classes: [USER], devices: ["a*b"] } } }',
    'devices.0: expected an id, or',
  ],
  [
    'a fan-out of none',
    'principals: { a: { publish: { classes: [USER], fan_out_max: 0 } } }',
    'principals.a.publish.fan_out_max: ',
  ],
  [
    'a time without unit',
    'principals: { a: { publish: { classes: [USER], ttl_max: "7" } } }',
    'ttl_max: expected a time such as',
  ],
  ['more than 30 days', 'principals: { a: { publish: { classes: [USER], ttl_max: 31d } } }', 'ttl_max: expected a time such as'],
  ['an operation that is none', 'principals: { a: { operations: [edges.explode] } }', 'principals.a.operations.0: '],
  ['a principal with a space', 'principals: { "a b": {} }', 'principals.a b: '],
])('refuses %s, and says where', (_what, text, words) => {
  expect(() => parsePolicy(text, 'ROUTER_POLICY_FILE names p.yaml')).toThrow(StartError)
  expect(() => parsePolicy(text, 'ROUTER_POLICY_FILE names p.yaml')).toThrow(/^ROUTER_POLICY_FILE names p\.yaml, which is /)
  expect(() => parsePolicy(text, 'file')).toThrow(words)
})

test('every problem is told in one go', () => {
  const text = 'principals: { a: { operations: [x] }, b: { publish: { classes: [y] } } }'
  expect(() => parsePolicy(text, 'file')).toThrow(/principals\.a\.operations\.0: .*\n {2}principals\.b\.publish\.classes\.0: /)
})

test('a changed policy is in force at the next look, and one that does not hold leaves the last good one', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'policy-'))
  const path = join(folder, 'policy.yaml')
  writeFileSync(path, 'principals: { a: {} }')
  const policy = openPolicy(path, { clock: new SteeredClock(), log: silentLog, metrics: createMetrics() })
  onTestFinished(() => {
    policy.close()
    rmSync(folder, { recursive: true })
  })
  const names = () => [...policy.value.keys()]
  expect(names()).toEqual(['a'])
  writeFileSync(path, 'principals: { a: { operations: [x] } }')
  await policy.look()
  expect(names()).toEqual(['a'])
  writeFileSync(path, 'principals: { a: {}, b: {} }')
  await policy.look()
  expect(names()).toEqual(['a', 'b'])
})
