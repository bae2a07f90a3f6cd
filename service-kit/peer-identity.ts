/** What a caller may be. Services are named by what they are, people and programs by what they do. */
export const roles = ['registry', 'router', 'edge', 'publisher', 'operator'] as const
export type Role = (typeof roles)[number]

/** What a certificate says of its holder, in URIs of its subject alternative name. */
export interface PeerIdentity {
  /** `push:role:<role>`. */
  readonly roles: readonly Role[]
  /** `push:edge:<name>`: the names of edges that the holder may register. */
  readonly edgeNames: readonly string[]
  /** `push:principal:<name>`: who messages and operator actions are of. Undefined when there is none, or more than one. */
  readonly principal: string | undefined
}

/** What principals and edges may be called in a certificate. */
const namePattern = /^[A-Za-z0-9._~@-]{1,128}$/
const uriPrefix = 'URI:'

/** Reads the subject alternative name as Node gives it. What is not of ours, or not of this form, says nothing. */
export function identityOfAltName(subjectAltName: string | undefined): PeerIdentity {
  const uris = splitAltName(subjectAltName ?? '').flatMap((entry) => (entry.startsWith(uriPrefix) ? [entry.slice(4)] : []))
  const after = (prefix: string) =>
    uris.flatMap((uri) =>
      uri.startsWith(prefix) && namePattern.test(uri.slice(prefix.length)) ? [uri.slice(prefix.length)] : [],
    )
  const named = after('push:role:')
  const principals = [...new Set(after('push:principal:'))]
  return {
    roles: roles.filter((role) => named.includes(role)),
    edgeNames: after('push:edge:'),
    principal: principals.length === 1 ? principals[0] : undefined,
  }
}

/** The entries of a subject alternative name as Node gives it: those with commas or quotes in them come in quotes, as JSON strings; so no entry can look like two. */
export function splitAltName(text: string): string[] {
  return [...text.matchAll(/(?:[^",]|"(?:[^"\\]|\\.)*")+/g)].map(([entry]) => entry.trim())
}

/** The name of an edge, from its id: each start of its process adds a dash and 8 characters. */
export function edgeNameOf(edgeId: string): string {
  return edgeId.replace(/-[^-]*$/, '')
}
