import type { Lane } from './message-queue.ts'

/** The names under which one plane's queue lives in Kafka. */
export interface TopicNames {
  readonly lanes: Readonly<Record<Lane, string>>
  readonly deadLetter: string
  readonly receipts: string
  readonly audit: string
  /** One consumer group for each lane, shared by all routers. */
  readonly groups: Readonly<Record<Lane, string>>
  /** What the groups that read dead letters begin with; each reading has one of its own. */
  readonly deadLetterGroupPrefix: string
}

/** With the default prefix `push.`: topics `push.high`, `push.normal`, `push.low`, `push.dead-letter`, `push.receipts`, `push.audit`; groups `push.router.high` and so on. */
export function topicNames(prefix: string): TopicNames {
  return {
    lanes: { high: `${prefix}high`, normal: `${prefix}normal`, low: `${prefix}low` },
    deadLetter: `${prefix}dead-letter`,
    receipts: `${prefix}receipts`,
    audit: `${prefix}audit`,
    groups: { high: `${prefix}router.high`, normal: `${prefix}router.normal`, low: `${prefix}router.low` },
    deadLetterGroupPrefix: `${prefix}router.dead-letters.`,
  }
}
