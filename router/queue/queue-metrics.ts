import type { Counter, Gauge } from 'prom-client'
import type { Metrics } from '../../service-kit/metrics.ts'

/** What both queues count. */
export interface QueueMetrics {
  readonly published: Counter<'lane'>
  readonly publishFailures: Counter
  readonly backlogRecords: Gauge
  readonly backlogFull: Counter
  readonly handedOver: Counter<'lane'>
  readonly leases: Gauge<'lane'>
  readonly commits: Counter<'lane'>
  readonly commitFailures: Counter<'lane'>
  readonly consumerCrashes: Counter<'lane'>
  readonly positionResets: Counter<'lane' | 'cause'>
  readonly stoppedPartitions: Gauge<'lane'>
  readonly ready: Gauge
}

export function queueMetrics(metrics: Metrics): QueueMetrics {
  return {
    published: metrics.counter('push_router_queue_published_total', 'Records made durable', ['lane']),
    publishFailures: metrics.counter('push_router_queue_publish_failures_total', 'Batches that the queue did not take'),
    backlogRecords: metrics.gauge('push_router_queue_backlog_records', 'Records that wait or are on their way into the queue'),
    backlogFull: metrics.counter('push_router_queue_backlog_full_total', 'Records refused because too many wait for the queue'),
    handedOver: metrics.counter('push_router_queue_handed_over_total', 'Records handed to dispatch, repeats included', ['lane']),
    leases: metrics.gauge('push_router_queue_leases', 'Partitions that this process owns', ['lane']),
    commits: metrics.counter('push_router_queue_commits_total', 'Commits written', ['lane']),
    commitFailures: metrics.counter(
      'push_router_queue_commit_failures_total',
      'Commits that failed; repeated while the lease lives',
      ['lane'],
    ),
    consumerCrashes: metrics.counter(
      'push_router_queue_consumer_crashes_total',
      'Times that a consumer gave up and was started again',
      ['lane'],
    ),
    positionResets: metrics.counter(
      'push_router_queue_position_resets_total',
      'Partitions read from another place than the committed one: out of range, recreated topic, vanished group',
      ['lane', 'cause'],
    ),
    stoppedPartitions: metrics.gauge(
      'push_router_queue_stopped_partitions',
      'Partitions that stand at a batch that cannot be decoded',
      ['lane'],
    ),
    ready: metrics.gauge('push_router_queue_ready', '1 while QUEUED messages are taken, else 0'),
  }
}
