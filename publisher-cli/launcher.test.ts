import { spawn } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished, test } from 'vitest'
import { MessageState, StateReason } from '../gen/push/v1/message.ts'
import { nodeSuffices } from '../service-kit/require-node.js'
import { startTestEdge } from './testing/test-edge.ts'
import { startTestService } from './testing/test-service.ts'

const launcher = fileURLToPath(new URL('./push-cli.js', import.meta.url))

/** Runs the real command in a process of its own. */
function launch(args: string[], stdin = '') {
  const child = spawn(process.execPath, [launcher, ...args], { stdio: ['pipe', 'pipe', 'pipe'] })
  const text = { stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (chunk) => {
    text.stdout += chunk
  })
  child.stderr.setEncoding('utf8').on('data', (chunk) => {
    text.stderr += chunk
  })
  if (stdin !== 'open') child.stdin.end(stdin)
  const done = new Promise<{ code: number | null; stdout: string; stderr: string }>((resolve) => {
    child.on('close', (code) => resolve({ code, ...text }))
  })
  onTestFinished(() => {
    child.kill('SIGKILL')
  })
  return { child, text, done }
}

async function answering(state: MessageState, reason: StateReason = StateReason.UNSPECIFIED) {
  const outcome = { state, reason, detail: '', edgeId: '', sessionId: '', hops: undefined }
  const service = await startTestService({
    publish: () => ({ messageId: 'id-1', acceptTime: undefined, expireTime: undefined, state, outcome, devices: [] }),
  })
  onTestFinished(service.close)
  return service
}

test('the result of a send goes to stdout, nothing to stderr, and the exit code is 0', async () => {
  const { address, published } = await answering(MessageState.ACKNOWLEDGED)
  const { done } = launch(['send', '--device', 'demo', '--data', '-', '--direct', '--json', '--address', address], '{"a":1}')
  const ran = await done
  expect(ran).toMatchObject({ code: 0, stderr: '' })
  expect(JSON.parse(ran.stdout)).toMatchObject({ device_id: 'demo', message_id: 'id-1', state: 'ACKNOWLEDGED' })
  expect(String(published[0]?.message?.payload)).toBe('{"a":1}')
})

test('a device that is offline makes the exit code 4', async () => {
  const { address } = await answering(MessageState.DROPPED, StateReason.OFFLINE)
  const { done } = launch(['send', '--device', 'demo', '--direct', '--address', address])
  expect(await done).toEqual({ code: 4, stdout: 'offline: dropped (message id-1)\n', stderr: '' })
})

test('a send through the queue ends as soon as the device has acknowledged, though its watch may last much longer', async () => {
  const service = await startTestService({
    publish: () => ({
      messageId: 'id-1',
      acceptTime: undefined,
      expireTime: undefined,
      state: MessageState.ACCEPTED,
      outcome: undefined,
      devices: [],
    }),
    async *watchMessage(_request, _n, signal) {
      const outcome = {
        state: MessageState.ACKNOWLEDGED,
        reason: StateReason.UNSPECIFIED,
        detail: '',
        edgeId: '',
        sessionId: '',
        hops: undefined,
      }
      yield { deviceId: 'demo', outcome, time: undefined, final: true, result: Buffer.alloc(0), recorded: [] }
      await new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }))
    },
  })
  onTestFinished(service.close)
  // Far longer than the test may take: a process that waits for it never ends here.
  const { done } = launch(['send', '--device', 'demo', '--data', '{}', '--timeout', '10m', '--address', service.address])
  expect((await done).code).toBe(0)
})

test('a usage error goes to stderr and makes the exit code 2', async () => {
  const ran = await launch(['send', '--device', 'demo', '--direct', '--wait', 'accepted']).done
  expect(ran).toEqual({ code: 2, stdout: '', stderr: expect.stringContaining('error: --direct does not go through the queue') })
})

test('talk and messages of a listener go apart, and Ctrl-C makes the exit code 130', async () => {
  const edge = await startTestEdge()
  onTestFinished(edge.close)
  const { child, text, done } = launch(['listen', '--device', 'my-tv', '--url', edge.url], 'open')
  await expect.poll(() => text.stderr, { timeout: 30_000 }).toContain('waiting for messages')
  edge.send('m1', { data: { n: 1 } })
  await expect.poll(() => text.stdout, { timeout: 30_000 }).toBe('USER {"n":1}\n')
  child.kill('SIGINT')
  expect(await done).toEqual({
    code: 130,
    stdout: 'USER {"n":1}\n',
    stderr: 'connected as my-tv (session s-1); waiting for messages, Ctrl-C ends\n',
  })
})

test('Ctrl-C while the data is being typed sends nothing', { timeout: 120_000 }, async () => {
  const { address, published } = await answering(MessageState.ACKNOWLEDGED)
  const interruptedAfter = async (waitMs: number) => {
    const { child, done } = launch(['send', '--device', 'demo', '--data', '-', '--address', address], 'open')
    child.stdin.write('half a mess')
    await new Promise((resolve) => setTimeout(resolve, waitMs))
    child.kill('SIGINT')
    return (await done).code
  }
  // On a busy machine the process may not have begun to listen for the signal, which then ends it without a code.
  const code = (await interruptedAfter(1_500)) ?? (await interruptedAfter(8_000)) ?? (await interruptedAfter(30_000))
  expect(code).toBe(130)
  expect(published).toEqual([])
})

test('a Node that is too old is told so before it reads anything that it cannot', () => {
  expect(nodeSuffices('20.20.0', 24, 3)).toBe(false)
  expect(nodeSuffices('24.2.9', 24, 3)).toBe(false)
  expect(nodeSuffices('24.3.0', 24, 3)).toBe(true)
  expect(nodeSuffices(process.versions.node, 24, 3)).toBe(true)
})
