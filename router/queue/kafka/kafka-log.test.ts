import { logLevel } from 'kafkajs'
import { expect, test } from 'vitest'
import { recordingLog } from '../../../service-kit/testing/recording-log.ts'
import { kafkaLog } from './kafka-log.ts'

test('what belongs to every rebalance and start is not cried out; other errors are warnings', () => {
  const log = recordingLog()
  const write = kafkaLog(log)(logLevel.INFO)
  const say = (level: logLevel, message: string, error?: string, namespace = 'Consumer') =>
    write({
      level,
      namespace,
      label: '',
      log: { timestamp: '', logger: 'kafkajs', message, ...(error ? { error } : {}) },
    })
  say(logLevel.ERROR, 'Response JoinGroup(key: 11, version: 5)', 'The group is rebalancing, so a rejoin is needed')
  say(logLevel.ERROR, 'Response Heartbeat(key: 12, version: 3)', "The coordinator is loading and hence can't process requests")
  say(logLevel.ERROR, 'Response GroupCoordinator(key: 10, version: 2)', 'The group coordinator is not available')
  say(logLevel.WARN, 'something')
  say(logLevel.ERROR, 'Connection error: connect ECONNREFUSED', undefined, 'Connection')
  say(logLevel.ERROR, 'Crash: KafkaJSError')
  expect(log.entries.map(({ level }) => level)).toEqual(['debug', 'debug', 'debug', 'debug', 'debug', 'warn'])
})
