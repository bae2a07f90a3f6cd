import { expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { recordingLog } from '../../service-kit/testing/recording-log.ts'
import { queueMetrics } from './queue-metrics.ts'
import { QueueStatus } from './queue-status.ts'

test('a queue that its owner closes says so, and warns nobody', () => {
  const log = recordingLog()
  const status = new QueueStatus(log, queueMetrics(createMetrics()))
  const states: string[] = []
  status.onChange((state) => states.push(state))
  status.answered()
  status.set(undefined)
  status.set('the broker is away')
  status.set(undefined)
  status.close()
  expect(status.state).toBe('unavailable')
  expect(status.reason).toBe('the queue is closed')
  expect(states).toEqual(['ready', 'unavailable', 'ready', 'unavailable'])
  expect(log.entries.filter(({ level }) => level === 'warn').map(({ facts }) => facts.problem)).toEqual(['the broker is away'])
})
