import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { HealthDefinition } from 'nice-grpc-server-health'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { systemClock } from '../../service-kit/clock.ts'
import { connectGrpc } from '../../service-kit/grpc-client.ts'
import { silentLog } from '../../service-kit/log.ts'
import { goProgram } from './go-programs.ts'
import { runH2spec } from './h2spec.ts'
import { knownDeviations } from './http2-deviations.ts'
import { type SmallPlane, startSmallPlane } from './small-plane.ts'

let folder: string
let plane: SmallPlane
let programs: { h2spec: string; grpcurl: string }

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'pushplane-grpc-ports-'))
  programs = { h2spec: await goProgram('h2spec'), grpcurl: await goProgram('grpcurl') }
  plane = await startSmallPlane()
})

afterAll(async () => {
  await plane?.close()
  await rm(folder, { recursive: true, force: true })
})

/** SERVING in grpc.health.v1. */
const servingStatus = 1
/** How often a case is tried alone before its failure counts: on a busy machine an answer may come later than h2spec waits. */
const triesMax = 8

test.for(['registry', 'router', 'edge'] as const)(
  'HTTP/2 of the %s: every case of h2spec but those that are known, and calls are answered after it',
  async (service) => {
    const address = plane.addresses[service]
    const report = (patienceS: number, only?: string) =>
      runH2spec({ program: programs.h2spec, address, folder, patienceS, ...(only === undefined ? {} : { only }) })
    const { caseCount, failures } = await report(1)
    expect(caseCount).toBe(145)
    for (const [name, words] of failures) {
      if (name in knownDeviations) continue
      let passed = false
      for (let tries = 0; tries < triesMax && !passed; tries++) {
        const alone = await report(3, name)
        passed = alone.caseCount === 1 && alone.failures.size === 0
      }
      expect(passed, `${name}: ${words}`).toBe(true)
    }
    const connection = connectGrpc({ addresses: address, log: silentLog, clock: systemClock })
    try {
      expect((await connection.client(HealthDefinition).check({ service: '' }, { deadlineMs: 30_000 })).status).toBe(
        servingStatus,
      )
    } finally {
      connection.close()
    }
  },
)

const grpcurl = async (...args: string[]) => {
  const { stdout } = await promisify(execFile)(programs.grpcurl, ['-plaintext', '-max-time', '60', ...args])
  return stdout
}

test('a stranger with nothing but reflection finds the services, reads a method and publishes', async () => {
  const { router, registry } = plane.addresses
  expect((await grpcurl(router, 'list')).split('\n')).toEqual(
    expect.arrayContaining(['push.v1.DeviceService', 'push.v1.OperationsService', 'push.v1.PublishService']),
  )
  expect(await grpcurl(registry, 'list')).toContain('push.internal.v1.RegistryService')
  const method = await grpcurl(router, 'describe', 'push.v1.PublishService.Publish')
  expect(method).toContain('rpc Publish ( .push.v1.PublishRequest ) returns ( .push.v1.PublishResponse );')
  const request = { message: { device_id: 'tv-1', payload: 'e30=', content_type: 'application/json' } }
  const answer: unknown = JSON.parse(await grpcurl('-d', JSON.stringify(request), router, 'push.v1.PublishService/Publish'))
  expect(answer).toMatchObject({ messageId: expect.stringMatching(/^[0-9a-f-]{36}$/), state: 'MESSAGE_STATE_ACCEPTED' })
})

test('a request that is refused is told with its reason and field, to a client without these contracts', async () => {
  const request = { message: { device_id: 'tv 1' } }
  const refused = grpcurl('-d', JSON.stringify(request), plane.addresses.router, 'push.v1.PublishService/Publish')
  const failure = await refused.then(
    () => ({ stderr: 'accepted' }),
    (error: { stderr: string }) => error,
  )
  expect(failure.stderr).toContain('Code: InvalidArgument')
  expect(failure.stderr).toContain('"reason": "INVALID_MESSAGE"')
  expect(failure.stderr).toContain('"field": "message.device_id"')
})
