import { errors } from 'cassandra-driver'
import { storeUnavailable } from '../stores.ts'

/** What went wrong with a statement, for the metric. */
export type CassandraFailure = 'timeout' | 'unavailable' | 'overloaded' | 'no_host' | 'defect'

const responseCodes: Record<number, CassandraFailure> = {
  0: 'unavailable', // server error
  4096: 'unavailable',
  4097: 'overloaded',
  4098: 'unavailable', // bootstrapping
  4352: 'timeout', // write timeout
  4608: 'timeout', // read timeout
  4864: 'unavailable', // read failure
  5376: 'unavailable', // write failure
}

const poolWords: ReadonlySet<string> = new Set(['No connection available', 'Connection closed'])

/**
 * Says what a driver error means. The driver hides what every host said in `innerErrors`, which may also be empty (all
 * hosts are marked down): any timeout among them means that the statement may have been carried out.
 */
export function failureOf(error: unknown): CassandraFailure {
  if (error instanceof errors.NoHostAvailableError) {
    const inner = innerErrorsOf(error).map(([, cause]) => failureOf(cause))
    if (inner.includes('timeout')) return 'timeout'
    return inner.find((failure) => failure !== 'defect') ?? 'no_host'
  }
  if (error instanceof errors.OperationTimedOutError) return 'timeout'
  if (error instanceof errors.BusyConnectionError) return 'overloaded'
  if (error instanceof errors.ResponseError) return responseCodes[error.code] ?? 'defect'
  // A connection that breaks under a statement says so with a code of the socket.
  if (error instanceof Error && ('isSocketError' in error || 'code' in error)) return 'unavailable'
  // What the driver says in so many words, and no class of its own, when a pool has lost its connections just now.
  if (error instanceof Error && poolWords.has(error.message)) return 'no_host'
  return 'defect'
}

/** The error to throw for a driver error: the store's trouble as one reason, a wrong statement as the defect it is. */
export function storeErrorOf(error: unknown): unknown {
  return failureOf(error) === 'defect' ? error : storeUnavailable(withInnerErrors(error))
}

/** The same error with the words of every host in its message, for the log. */
function withInnerErrors(error: unknown): unknown {
  if (!(error instanceof errors.NoHostAvailableError)) return error
  const words = innerErrorsOf(error).map(([host, cause]) => `${host}: ${cause instanceof Error ? cause.message : String(cause)}`)
  return new Error(`no host answered (${words.length > 0 ? words.join('; ') : 'all are marked down'})`, { cause: error })
}

function innerErrorsOf(error: errors.NoHostAvailableError): [string, unknown][] {
  const inner: unknown = error.innerErrors
  return typeof inner === 'object' && inner !== null ? Object.entries(inner) : []
}
