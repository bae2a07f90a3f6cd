import type { Client, types } from 'cassandra-driver'
import type { Metrics } from '../../service-kit/metrics.ts'
import { failureOf, storeErrorOf } from './errors.ts'

/** What may be bound. A `bigint` column takes BigInt only; `null` and `undefined` are nothing that we ever mean. */
export type CqlValue = string | number | bigint | boolean | Buffer

/** A prepared statement. */
export interface Statement {
  readonly query: string
  /**
   * Carrying it out twice, or late, changes nothing: a read, or a write with a timestamp of its own. Only such a statement
   * is sent to a second host when the first is slow.
   */
  readonly repeatable: boolean
}

/** Runs statements. Rejects with REGISTRY_UNAVAILABLE for any trouble of the cluster. */
export type RunStatement = (statement: Statement, values: readonly CqlValue[]) => Promise<types.Row[]>

/** Binds the driver's client. */
export function createStatementRunner(client: Pick<Client, 'execute'>, metrics: Metrics): RunStatement {
  const failures = metrics.counter('push_registry_cassandra_failures_total', 'Statements that failed, by what went wrong', [
    'failure',
  ])
  return async ({ query, repeatable }, values) => {
    checkBound(query, values)
    try {
      const result = await client.execute(query, [...values], { prepare: true, isIdempotent: repeatable })
      return result.rows ?? []
    } catch (error) {
      failures.inc({ failure: failureOf(error) })
      throw storeErrorOf(error)
    }
  }
}

/**
 * The driver takes `undefined` for "not set": a TTL that is not set never ends, a timestamp that is not set is made up.
 * The types forbid it; this is for what the types do not see.
 */
function checkBound(query: string, values: readonly unknown[]): void {
  const places = query.split('?').length - 1
  if (values.length !== places) throw new TypeError(`${values.length} values for ${places} places in: ${query}`)
  values.forEach((value, at) => {
    if (value === undefined || value === null) throw new TypeError(`value ${at + 1} is ${value} in: ${query}`)
    if (typeof value === 'number' && !Number.isSafeInteger(value)) throw new TypeError(`value ${at + 1} is ${value} in: ${query}`)
  })
}
