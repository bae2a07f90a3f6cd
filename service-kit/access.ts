import type { CallContext, ServerMiddleware } from 'nice-grpc-common'
import { isAbortError } from './abort.ts'
import { anonymous, type Caller, type CallerContext, callerOfCertificate, nobody, peerIdentity } from './caller.ts'
import type { Clock, Timer } from './clock.ts'
import { type Role, roles } from './peer-identity.ts'
import { PushError } from './push-error.ts'

/** Who may call what: for each path of an RPC (`/package.Service/Method`) its roles. What is not in it, nobody may call. */
export type RoleTable = ReadonlyMap<string, readonly Role[] | 'everyone'>

/** Judges bearer tokens. */
export interface TokenVerifier {
  /** Never rejects. */
  verify(token: string): Promise<TokenVerdict>
}

/** Who a token is of. A refusal is about this token (`invalid`, `expired`), or nobody's can be judged now (`unavailable`). */
export type TokenVerdict =
  | { readonly ok: true; readonly principal: string; readonly roles: readonly Role[]; readonly expiresAtMs: number }
  | { readonly ok: false; readonly verdict: 'invalid' | 'expired' | 'unavailable'; readonly detail: string }

/** What `accessMiddleware` takes. */
export interface AccessOptions {
  /** Unset: nobody is refused for want of a role. */
  readonly table: RoleTable | undefined
  /** Callers have to say who they are: by certificate, or by token where those are taken. Otherwise everybody may do what the table knows. */
  readonly authenticated: boolean
  /** Judges `authorization: Bearer` of a call's metadata. Unset: tokens are not looked at. */
  readonly tokens?: TokenVerifier | undefined
  /** Hears of each caller that is known and has not the role, before it is told so. Must not reject. */
  readonly onDenied?: ((denied: DeniedCall) => Promise<void>) | undefined
  readonly clock: Clock
}

/** A call that its caller has not the role for. */
export interface DeniedCall {
  /** `/package.Service/Method`. */
  readonly path: string
  readonly caller: Caller
  /** Undefined where it is a stream. */
  readonly request: unknown
  readonly error: PushError
}

/** The roles of one service's RPCs, all of them by their names in the generated definition; for a role table. */
export function methodRoles<Definition extends ServiceNames>(
  definition: Definition,
  byMethod: { readonly [Method in keyof Definition['methods']]: readonly Role[] },
): (readonly [string, readonly Role[]])[] {
  return Object.entries(definition.methods).map(([key, { name }]) => {
    const allowed: readonly Role[] | undefined = byMethod[key as keyof Definition['methods']]
    return [`/${definition.fullName}/${name}`, allowed ?? []] as const
  })
}

interface ServiceNames {
  readonly fullName: string
  readonly methods: Readonly<Record<string, { readonly name: string }>>
}

/**
 * Finds out who calls and refuses who may not, before anything of the call is looked at: UNAUTHENTICATED without a name, PERMISSION_MISSING
 * without the role. A stream ends UNAUTHENTICATED when the token that opened it expires.
 */
export function accessMiddleware(options: AccessOptions): ServerMiddleware<CallerContext> {
  const { table, clock } = options
  return async function* checkAccess(call, context) {
    const allowed = table === undefined ? roles : table.get(call.method.path)
    const caller = await callerOf(options, context, allowed === 'everyone')
    const { path } = call.method
    if (allowed === undefined) throw denied(path, caller, 'nobody may call it')
    if (allowed !== 'everyone' && !allowed.some((role) => caller.roles.includes(role))) {
      const error = denied(path, caller, `it takes the role ${allowed.join(' or ')}`)
      await options.onDenied?.({ path, caller, request: call.requestStream ? undefined : call.request, error })
      throw error
    }
    const { expiresAtMs } = caller
    if (expiresAtMs === undefined || (!call.requestStream && !call.responseStream)) {
      return yield* call.next(call.request, { ...context, caller })
    }

    const ending = new AbortController()
    const timer: Timer = clock.after(Math.max(0, expiresAtMs - clock.now()), () => ending.abort())
    try {
      const response = yield* call.next(call.request, {
        ...context,
        caller,
        signal: AbortSignal.any([context.signal, ending.signal]),
      })
      if (ending.signal.aborted) throw unauthenticated('the token has expired')
      return response
    } catch (error) {
      if (!isAbortError(error) || !ending.signal.aborted || context.signal.aborted) throw error
      throw unauthenticated('the token has expired')
    } finally {
      timer.cancel()
    }
  }
}

async function callerOf(options: AccessOptions, context: CallContext, everyone: boolean): Promise<Caller> {
  const { authenticated, tokens } = options
  if (!authenticated) return anonymous
  if (everyone) return nobody
  const token = tokens && bearerOf(context)
  if (tokens && token !== undefined) {
    const verdict = await tokens.verify(token)
    if (verdict.ok) {
      const { principal, roles, expiresAtMs } = verdict
      return { principal, roles, edgeNames: [], shown: 'token', expiresAtMs }
    }
    if (verdict.verdict === 'unavailable') throw new PushError('KEYS_UNAVAILABLE', verdict.detail, {}, { retryAfterMs: 1_000 })
    throw unauthenticated(verdict.detail)
  }
  const identity = peerIdentity(context)
  const ways = tokens ? 'a certificate or a token (authorization: Bearer …)' : 'a certificate'
  if (identity === undefined) throw unauthenticated(`this server wants ${ways} of its callers`)
  const caller = callerOfCertificate(identity)
  if (caller === undefined) {
    throw unauthenticated(
      'the certificate names no role, or a publisher or operator without principal (URIs push:role:…, push:principal:…)',
    )
  }
  return caller
}

/** The token of `authorization: Bearer <token>`. Undefined without the header; empty when it is of another form. */
function bearerOf({ metadata }: CallContext): string | undefined {
  const header = metadata.get('authorization')
  return header === undefined ? undefined : (/^Bearer +(\S+)$/i.exec(header)?.[1] ?? '')
}

function unauthenticated(why: string): PushError {
  return new PushError('UNAUTHENTICATED', why)
}

function denied(path: string, { principal, roles }: Caller, why: string): PushError {
  const method = path.slice(1)
  return new PushError(
    'PERMISSION_MISSING',
    `${principal} may not call ${method}: ${why}, and has ${roles.join(', ') || 'none'}`,
    {
      principal,
      method,
    },
  )
}
