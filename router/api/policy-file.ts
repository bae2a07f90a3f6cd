import { parse as parseYaml, YAMLParseError } from 'yaml'
import { z } from 'zod'
import { MessageClass, Priority } from '../../gen/push/v1/message.ts'
import { StartError } from '../../service-kit/start-error.ts'
import { ttlMaxMs } from './message-check.ts'

/** What operators do, by the names that the policy gives it. */
export const operations = [
  'devices.read',
  'devices.disconnect',
  'edges.read',
  'edges.drain',
  'dead-letters.read',
  'dead-letters.replay',
  'dead-letters.purge',
  'messages.read',
  'messages.cancel',
] as const
export type Operation = (typeof operations)[number]

/** What one principal may do. */
export interface PrincipalPolicy {
  /** Undefined: it publishes nothing. */
  readonly publish: PublishPolicy | undefined
  readonly operations: ReadonlySet<Operation>
}

/** What a principal may publish, and to whom. */
export interface PublishPolicy {
  readonly classes: ReadonlySet<MessageClass>
  /** Ids, or beginnings of ids that end with `*`. Empty: no device, or no account. */
  readonly devices: readonly string[]
  readonly accounts: readonly string[]
  /** Devices that one message to an account may reach; undefined: as many as the account has. */
  readonly fanOutMax: number | undefined
  readonly priorities: ReadonlySet<Priority>
  readonly ttlMaxMs: number
}

/** The policy of every principal. Who is not in it may do nothing. */
export type Policy = ReadonlyMap<string, PrincipalPolicy>

const classByName = { USER: MessageClass.USER, DIAGNOSTIC: MessageClass.DIAGNOSTIC, RECOVERY: MessageClass.RECOVERY } as const
const priorityByName = { HIGH: Priority.HIGH, NORMAL: Priority.NORMAL, LOW: Priority.LOW } as const
/** The registry lists one more than these in one answer. */
const fanOutLimit = 999
const unitMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

const patterns = z.array(
  z
    .string()
    .regex(
      /^(?:[A-Za-z0-9._:~-]{1,128}|[A-Za-z0-9._:~-]{0,128}\*)$/,
      'expected an id, or the beginning of ids with * at its end',
    ),
)
const duration = z.string().transform((typed, context) => {
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(typed) ?? []
  const ms = unit === undefined ? undefined : Number(count) * unitMs[unit as keyof typeof unitMs]
  if (ms !== undefined && ms <= ttlMaxMs) return ms
  context.addIssue({ code: 'custom', message: 'expected a time such as 10s, 5m, 1h or 7d, at most 30d' })
  return z.NEVER
})

const publish = z
  .strictObject({
    classes: z.array(z.enum(['USER', 'DIAGNOSTIC', 'RECOVERY'])).min(1),
    devices: patterns.default([]),
    accounts: patterns.default([]),
    fan_out_max: z.int().min(1).max(fanOutLimit).optional(),
    priorities: z
      .array(z.enum(['HIGH', 'NORMAL', 'LOW']))
      .min(1)
      .default(['NORMAL', 'LOW']),
    ttl_max: duration.default(ttlMaxMs),
  })
  .transform(
    ({ classes, devices, accounts, fan_out_max, priorities, ttl_max }): PublishPolicy => ({
      classes: new Set(classes.map((name) => classByName[name])),
      devices,
      accounts,
      fanOutMax: fan_out_max,
      priorities: new Set(priorities.map((name) => priorityByName[name])),
      ttlMaxMs: ttl_max,
    }),
  )

const principal = z
  .strictObject({ publish: publish.optional(), operations: z.array(z.enum(operations)).default([]) })
  .transform(({ publish, operations }): PrincipalPolicy => ({ publish, operations: new Set(operations) }))

const file = z.strictObject({
  principals: z.record(z.string().regex(/^[A-Za-z0-9._~@:-]{1,128}$/, 'is no name of a principal'), principal),
})

/** Reads a policy, YAML or JSON, and checks it whole. Throws StartError that begins with `what` and names every problem. */
export function parsePolicy(text: string, what: string): Policy {
  const result = file.safeParse(readYaml(text, what))
  if (result.success) return new Map(Object.entries(result.data.principals))
  const problems = result.error.issues.map(({ path, message }) => `  ${path.join('.') || 'the file'}: ${message}`)
  throw new StartError([`${what}, which is no policy:`, ...problems].join('\n'))
}

function readYaml(text: string, what: string): unknown {
  try {
    return parseYaml(text)
  } catch (cause) {
    const words = cause instanceof YAMLParseError ? cause.message.split('\n', 1)[0] : 'it cannot be read'
    throw new StartError(`${what}, which is neither YAML nor JSON: ${words}`, { cause })
  }
}
