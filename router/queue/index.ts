export {
  type EmbeddedQueue,
  type EmbeddedQueueBounds,
  type EmbeddedQueueOptions,
  openEmbeddedQueue,
} from './embedded/embedded-queue.ts'
export { QueueFileError } from './embedded/queue-file.ts'
export type { KafkaQueueBounds, KafkaQueueOptions } from './kafka/kafka-options.ts'
export { openKafkaQueue } from './kafka/kafka-queue.ts'
export {
  type DeadLetterPage,
  type DeadLetterPosition,
  type Lane,
  lanes,
  type MessageQueue,
  type OutgoingRecord,
  type PartitionLease,
  type QueueConsumer,
  type QueueRecord,
  type QueueState,
  type StoredDeadLetter,
} from './message-queue.ts'
export { openQueue, type QueueParts } from './open-queue.ts'
export { type QueueConfig, queueProblems, queueSettings } from './settings.ts'
export { type TopicNames, topicNames } from './topics.ts'
