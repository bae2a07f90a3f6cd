import { inject } from 'vitest'
import { createMetrics } from '../../../service-kit/metrics.ts'
import { metricValue } from '../../../service-kit/testing/metric-value.ts'
import { messageQueueSuite } from '../message-queue.suite.ts'
import { kafkaStand } from '../testing/kafka-stand.ts'

messageQueueSuite('queue on Kafka', async () => {
  const stand = kafkaStand(inject('kafkaBrokers'))
  let metrics = createMetrics()
  return {
    open: async (bounds = {}) => {
      const opened = await stand.openReady({ bounds })
      metrics = opened.metrics
      return opened.queue
    },
    commitCount: async (lane) => (await metricValue(metrics, 'push_router_queue_commits_total', { lane })) ?? 0,
    deadLetters: async () => {
      const letters: Array<{ key: string; text: string }> = []
      const consumer = stand.kafka.consumer({ groupId: `${stand.names.deadLetter}.test`, maxWaitTimeInMs: 100 })
      await consumer.connect()
      await consumer.subscribe({ topic: stand.names.deadLetter, fromBeginning: true })
      await new Promise<void>((resolve, reject) => {
        consumer
          .run({
            eachMessage: async ({ message }) => {
              letters.push({ key: `${message.key}`, text: `${message.value}` })
              if (letters.length === 2) resolve()
            },
          })
          .catch(reject)
      })
      await consumer.disconnect()
      return letters
    },
    close: () => stand.close(),
  }
})
