import { expect, test } from 'vitest'
import { ServerStartError, withPortRetry } from './server-node.ts'

test('a start that meets a taken port is tried again on others, four times in all', async () => {
  let attemptCount = 0
  const taken = async () => {
    attemptCount++
    throw new ServerStartError('taken', true)
  }
  await expect(withPortRetry(taken)).rejects.toThrow('taken')
  expect(attemptCount).toBe(4)

  const thirdTime = async () => (attemptCount++ < 6 ? await taken() : 'up')
  await expect(withPortRetry(thirdTime)).resolves.toBe('up')
})

test('any other failure is not tried again', async () => {
  let attemptCount = 0
  const broken = async () => {
    attemptCount++
    throw new ServerStartError('out of memory', false)
  }
  await expect(withPortRetry(broken)).rejects.toThrow('out of memory')
  expect(attemptCount).toBe(1)
})
