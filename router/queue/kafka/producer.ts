import { type Kafka, type Message, Partitioners, type Producer, type RecordMetadata } from 'kafkajs'
import type { Clock } from '../../../service-kit/clock.ts'
import type { Log } from '../../../service-kit/log.ts'

export interface TopicRecord {
  readonly topic: string
  readonly key: string
  readonly value: Uint8Array
}

export interface RecordProducer {
  /**
   * Resolves when every record is on all in-sync replicas. One call at a time: kafkajs numbers the records of an idempotent producer anew after
   * a failure, and two calls under way could be given the same numbers, of which Kafka then drops one as a repeat.
   *
   * After a rejection this producer must not be used again, for the same reason: what failed may be in the log under the next call's numbers.
   */
  send(records: readonly TopicRecord[]): Promise<void>
  close(): Promise<void>
}

export interface ProducerOptions {
  readonly kafka: Kafka
  readonly log: Log
  readonly clock: Clock
  /** The longest a call to `send` may take, repeats within kafkajs included, ms. */
  readonly sendTimeoutMs: number
}

/** Opens one idempotent producer. Rejects when Kafka does not answer. */
export async function openProducer(options: ProducerOptions): Promise<RecordProducer> {
  const { kafka, log, clock, sendTimeoutMs } = options
  /** The partition each message was last put into. */
  let placed = new Map<Message, number>()
  const producer = kafka.producer({
    idempotent: true,
    allowAutoTopicCreation: false,
    // Long enough for the election of new leaders, which was seen to take seven seconds.
    retry: { initialRetryTime: 100, maxRetryTime: 1_000, retries: 30 },
    createPartitioner: () => {
      const partition = Partitioners.DefaultPartitioner()
      return (place) => {
        const chosen = partition(place)
        placed.set(place.message, chosen)
        return chosen
      }
    },
  })
  await producer.connect()

  const send = async (records: readonly TopicRecord[]) => {
    placed = new Map()
    const messagesByTopic = new Map<string, Message[]>()
    for (const { topic, key, value } of records) {
      const messages = messagesByTopic.get(topic) ?? []
      messages.push({ key, value: Buffer.from(value.buffer, value.byteOffset, value.byteLength) })
      messagesByTopic.set(topic, messages)
    }
    const answers = await sendInTime(producer, messagesByTopic, clock, sendTimeoutMs)
    checkAnswers(messagesByTopic, placed, answers)
  }

  return {
    send,
    close: () => producer.disconnect().catch((error: unknown) => log.debug('producer did not close in order', { cause: error })),
  }
}

async function sendInTime(producer: Producer, messagesByTopic: Map<string, Message[]>, clock: Clock, timeoutMs: number) {
  const timer = new AbortController()
  const sending = producer.sendBatch({
    acks: -1,
    timeout: timeoutMs,
    topicMessages: [...messagesByTopic].map(([topic, messages]) => ({ topic, messages })),
  })
  const tooLate = clock.sleep(timeoutMs, timer.signal).then(() => {
    throw new Error(`Kafka has not taken a batch within ${timeoutMs} ms`)
  })
  sending.catch(() => undefined)
  tooLate.catch(() => undefined)
  try {
    return await Promise.race([sending, tooLate])
  } finally {
    timer.abort()
  }
}

/**
 * When a partition's leader moves between two attempts to a broker that has answered already, kafkajs leaves that partition out and reports
 * success. So each partition that was written to must be among the answers.
 */
export function checkAnswers(
  messagesByTopic: ReadonlyMap<string, readonly Message[]>,
  placed: ReadonlyMap<Message, number>,
  answers: readonly RecordMetadata[],
): void {
  const answered = new Set(
    answers.filter(({ errorCode }) => errorCode === 0).map((answer) => `${answer.topicName}/${answer.partition}`),
  )
  for (const [topic, messages] of messagesByTopic) {
    for (const message of messages) {
      const place = `${topic}/${placed.get(message)}`
      if (!answered.has(place)) throw new Error(`Kafka has not confirmed the records for ${place}`)
    }
  }
}
