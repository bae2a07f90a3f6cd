import { MessageClass, Priority } from '../../gen/push/v1/message.ts'
import type { Caller } from '../../service-kit/caller.ts'
import type { Clock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import { msFromDuration } from '../../service-kit/time.ts'
import type { CheckedMessage } from './message-check.ts'
import type { Operation, Policy, PublishPolicy } from './policy-file.ts'

/** Decides what callers may do. */
export interface Permissions {
  /** Throws unless the caller may publish this now: CLASS_FORBIDDEN, PERMISSION_MISSING, or UNAUTHENTICATED when its token has expired meanwhile. */
  requirePublish(caller: Caller, message: CheckedMessage): void
  /** Devices that one message of this principal to an account may reach; undefined: as many as there are. */
  fanOutMax(principal: string): number | undefined
  /** Why this principal may not publish the message, as the end of a sentence; undefined when it may. */
  publishProblem(principal: string, message: CheckedMessage): string | undefined
  /** Throws PERMISSION_MISSING unless the caller may do this. */
  requireOperation(caller: Caller, operation: Operation): void
  /** Whether the caller may do this to messages of this principal: its own, or everybody's as an operator who is allowed to. */
  owns(caller: Caller, principal: string, operation: 'messages.read' | 'messages.cancel'): boolean
}

/** Permissions by the policy that is in force when they are asked for. Without a policy everybody may do everything. */
export function createPermissions(policyNow: () => Policy | undefined, clock: Clock): Permissions {
  const refusalOf = (principal: string, message: CheckedMessage) => {
    const policy = policyNow()
    return policy && publishRefusal(principal, policy.get(principal)?.publish, message)
  }
  const may = ({ principal }: Caller, operation: Operation) => {
    const policy = policyNow()
    return policy === undefined || policy.get(principal)?.operations.has(operation) === true
  }
  return {
    requirePublish(caller, message) {
      // A stream that was open before may still hand something in.
      if (caller.expiresAtMs !== undefined && caller.expiresAtMs <= clock.now())
        throw new PushError('UNAUTHENTICATED', 'the token has expired')
      const refusal = refusalOf(caller.principal, message)
      if (refusal) throw refusal
    },
    fanOutMax: (principal) => policyNow()?.get(principal)?.publish?.fanOutMax,
    publishProblem: (principal, message) => refusalOf(principal, message)?.message,
    requireOperation(caller, operation) {
      if (may(caller, operation)) return
      const { principal } = caller
      throw new PushError('PERMISSION_MISSING', `${principal} may not do this: the policy gives it no "${operation}"`, {
        principal,
        operation,
      })
    },
    owns: (caller, principal, operation) =>
      caller.principal === principal || (caller.roles.includes('operator') && may(caller, operation)),
  }
}

const classNames = Object.fromEntries(Object.entries(MessageClass).map(([name, value]) => [value, name]))
const priorityNames = Object.fromEntries(Object.entries(Priority).map(([name, value]) => [value, name]))

function publishRefusal(
  principal: string,
  allowed: PublishPolicy | undefined,
  { message, target }: CheckedMessage,
): PushError | undefined {
  const missing = (what: string, metadata: Record<string, string>) =>
    new PushError('PERMISSION_MISSING', `${principal} may not publish ${what}`, { principal, ...metadata })
  if (allowed === undefined) return missing('anything: the policy does not say that it may', {})
  if (!allowed.classes.has(message.messageClass)) {
    const name = classNames[message.messageClass] ?? String(message.messageClass)
    return new PushError('CLASS_FORBIDDEN', `${principal} may not publish messages of class ${name}`, {
      principal,
      message_class: name,
    })
  }
  const kind = target.$case === 'deviceId' ? 'device' : 'account'
  const patterns = target.$case === 'deviceId' ? allowed.devices : allowed.accounts
  if (!patterns.some((pattern) => matches(pattern, target.value)))
    return missing(`to ${kind} ${target.value}`, { [`${kind}_id`]: target.value })
  if (!allowed.priorities.has(message.priority)) {
    const name = priorityNames[message.priority] ?? String(message.priority)
    return missing(`at priority ${name}`, { priority: name })
  }
  const ttlMs = message.ttl ? msFromDuration(message.ttl) : 0
  if (ttlMs > allowed.ttlMaxMs) {
    const most = `${allowed.ttlMaxMs / 1_000} s`
    return missing(`with a time to live of ${ttlMs / 1_000} s; at most ${most}`, { ttl_max: most })
  }
  return undefined
}

function matches(pattern: string, id: string): boolean {
  return pattern.endsWith('*') ? id.startsWith(pattern.slice(0, -1)) : id === pattern
}
