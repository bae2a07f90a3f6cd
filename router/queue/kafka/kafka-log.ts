import { type logCreator, logLevel } from 'kafkajs'
import type { Log } from '../../../service-kit/log.ts'

/** Part of every orderly rebalance and start, though kafkajs calls them errors. */
const harmless = [/rebalancing/i, /coordinator is loading/i, /coordinator is not available/i, /not the correct coordinator/i]

/** Told many times a second while Kafka is away; the queue tells it once. */
const noisy = new Set(['Connection', 'BrokerPool'])

/** Has kafkajs talk through the service's log: one step quieter than it would, as it cries at what mends itself. Never a record's content. */
export function kafkaLog(log: Log): logCreator {
  return () =>
    ({ level, namespace, log: entry }) => {
      const { message, error, broker, groupId, retryCount } = entry as typeof entry & Record<string, unknown>
      const facts = { part: namespace, message, problem: error, broker, group_id: groupId, retry_count: retryCount }
      const text = `${message} ${typeof error === 'string' ? error : ''}`
      if (level === logLevel.ERROR && !noisy.has(namespace) && !harmless.some((pattern) => pattern.test(text)))
        log.warn('kafka client reports', facts)
      else log.debug('kafka client reports', facts)
    }
}
