import { once } from 'node:events'
import { createServer } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import { freePorts, portAnswers } from './ports.ts'

test('a port on which somebody listens is passed over, on any of the hosts', async () => {
  const [before = 0] = await freePorts(1)
  const somebody = createServer().listen(before + 1, '127.0.0.2')
  onTestFinished(() => void somebody.close())
  await once(somebody, 'listening')
  const next = await freePorts(3, ['127.0.0.1', '127.0.0.2'])
  expect(next).toHaveLength(3)
  expect(next).not.toContain(before + 1)
})

test('callers at the same time get different ports', async () => {
  const ports = (await Promise.all([freePorts(4), freePorts(4), freePorts(4)])).flat()
  expect(new Set(ports).size).toBe(12)
})

test('a host that this machine has not is an error with its name', async () => {
  await expect(freePorts(1, ['192.0.2.1'])).rejects.toThrow('cannot listen on 192.0.2.1')
})

test('a port answers while somebody listens', async () => {
  const [port = 0] = await freePorts(1)
  expect(await portAnswers('127.0.0.1', port)).toBe(false)
  const somebody = createServer().listen(port, '127.0.0.1')
  onTestFinished(() => void somebody.close())
  await once(somebody, 'listening')
  expect(await portAnswers('127.0.0.1', port)).toBe(true)
})
