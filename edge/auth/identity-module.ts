import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import { wrongFile } from '../../service-kit/named-file.ts'
import type { Identity } from './identity.ts'

/** What a module of the operator's own gets when it is opened, once for each edge. */
export interface IdentityModuleContext {
  /** Time as the edge sees it; `now()` is the wall clock in ms. */
  readonly clock: Pick<Clock, 'now' | 'monotonic'>
  /** The edge's log. Facts named like secrets are left out; a credential must not be a fact by any name. */
  readonly log: Pick<Log, 'info' | 'warn' | 'error'>
}

/** The identity of a module of the operator's own. */
export interface ModuleIdentity extends Identity {
  /** Called once when the edge has stopped. */
  close?(): void | Promise<void>
}

/** The default export of such a module: opens the identity. What it throws keeps the edge from starting. */
export type IdentityModule = (context: IdentityModuleContext) => ModuleIdentity | Promise<ModuleIdentity>

/** Loads a module and opens its identity. Throws StartError with what is wrong. */
export async function openIdentityModule(path: string, context: IdentityModuleContext): Promise<ModuleIdentity> {
  const wrong = (what: string, cause?: unknown) => wrongFile({ setting: 'EDGE_AUTH_MODULE', path }, what, cause)
  let open: unknown
  try {
    const loaded: { default?: unknown } = await import(pathToFileURL(resolve(path)).href)
    open = loaded.default
  } catch (cause) {
    throw wrong(`which cannot be loaded (${wordsOf(cause)})`, cause)
  }
  if (typeof open !== 'function') throw wrong('which has no function as its default export')
  let identity: unknown
  try {
    identity = await open(context)
  } catch (cause) {
    throw wrong(`which did not open (${wordsOf(cause)})`, cause)
  }
  if (!isIdentity(identity)) throw wrong('whose function gave no object with an authenticate function')
  return identity
}

function isIdentity(value: unknown): value is ModuleIdentity {
  return typeof value === 'object' && value !== null && 'authenticate' in value && typeof value.authenticate === 'function'
}

function wordsOf(cause: unknown): string {
  return cause instanceof Error ? cause.message.split('\n', 1).join() : String(cause)
}
