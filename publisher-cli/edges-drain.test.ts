import { expect, onTestFinished, test } from 'vitest'
import { type EdgeDrain, EdgeDrainState, EdgeState } from '../gen/push/v1/operations.ts'
import { PushError } from '../service-kit/errors.ts'
import { run, start } from './testing/run-here.ts'
import { type Answers, startTestService } from './testing/test-service.ts'

async function service(answers: Answers): Promise<string[]> {
  const { address, close } = await startTestService(answers)
  onTestFinished(close)
  return ['--address', address]
}

const drainIn = (state: EdgeDrainState, more: Partial<EdgeDrain> = {}): EdgeDrain => ({
  edgeId: 'edge-a',
  startTime: { seconds: 1_767_225_600, nanos: 0 },
  connectionCount: 40,
  state,
  startConnectionCount: 100,
  toldCount: 10,
  ratePerSecond: 2.5,
  stopping: false,
  ...more,
})

test.each([
  [[], { duration: undefined, ratePerSecond: 0 }],
  [['--rate', '2.5'], { duration: undefined, ratePerSecond: 2.5 }],
  [['--over', '5m'], { duration: { seconds: 300, nanos: 0 }, ratePerSecond: 0 }],
])('edges drain %j starts it with that pace and says how it is', async (args, pace) => {
  const asked: unknown[] = []
  const address = await service({
    drainEdge: (request) => {
      asked.push(request)
      return { drain: drainIn(EdgeDrainState.EVICTING) }
    },
  })
  expect(await run(['edges', 'drain', 'edge-a', ...args, ...address])).toEqual({
    code: 0,
    stdout: ['edge-a: evicting: 40 of 100 devices left, 10 of them asked to leave, 2.5 a second'],
    stderr: [],
  })
  expect(asked).toEqual([{ edgeId: 'edge-a', ...pace }])
})

test('--wait follows it until all have gone', async () => {
  const states = [EdgeDrainState.NOT_READY, EdgeDrainState.EVICTING, EdgeDrainState.GONE]
  const address = await service({
    drainEdge: () => ({ drain: drainIn(EdgeDrainState.NOT_READY) }),
    getEdgeDrain: () => ({ drain: drainIn(states.shift() ?? EdgeDrainState.GONE) }),
  })
  const ran = await run(['edges', 'drain', 'edge-a', '--wait', '--json', ...address])
  expect(ran.code).toBe(0)
  expect(ran.stderr).toEqual([
    'edge-a: not ready, waits for its balancer to notice; 40 devices',
    'edge-a: evicting: 40 of 100 devices left, 10 of them asked to leave, 2.5 a second',
    'edge-a: gone: it can be stopped',
  ])
  expect(ran.stdout.map((line) => JSON.parse(line))).toEqual([
    {
      edge_id: 'edge-a',
      state: 'GONE',
      start_time: '2026-01-01T00:00:00.000Z',
      connection_count: 40,
      start_connection_count: 100,
      told_count: 10,
      rate_per_second: 2.5,
      stopping: false,
    },
  ])
})

test('--wait ends with 7 when somebody else takes the drain back', async () => {
  const address = await service({
    drainEdge: () => ({ drain: drainIn(EdgeDrainState.EVICTING) }),
    getEdgeDrain: () => ({ drain: drainIn(EdgeDrainState.SERVING) }),
  })
  expect(await run(['edges', 'drain', 'edge-a', '--wait', ...address])).toMatchObject({
    code: 7,
    stdout: ['edge-a: does not drain; 40 devices'],
  })
})

test('Ctrl-C ends the waiting, and the command says that the drain goes on', async () => {
  const address = await service({
    drainEdge: () => ({ drain: drainIn(EdgeDrainState.EVICTING) }),
    getEdgeDrain: () => ({ drain: drainIn(EdgeDrainState.FORCING) }),
  })
  const running = start(['edges', 'drain', 'edge-a', '--wait', ...address])
  await running.said('forcing')
  running.interrupt()
  const ran = await running.done
  expect(ran).toMatchObject({ code: 130, stdout: [] })
  expect(ran.stderr.at(-1)).toBe('the drain goes on; --show says how far it is, --abort takes it back')
})

test('--show only asks, --abort takes it back; what cannot be taken back is told', async () => {
  const address = await service({
    getEdgeDrain: () => ({ drain: drainIn(EdgeDrainState.FORCING) }),
    abortEdgeDrain: ({ edgeId }) => {
      if (edgeId === 'edge-b') throw new PushError('DRAIN_FINAL', 'the drain of edge-b is over')
      return { drain: drainIn(EdgeDrainState.SERVING) }
    },
  })
  const shown = await run(['edges', 'drain', 'edge-a', '--show', ...address])
  expect(shown).toMatchObject({ code: 0, stdout: [expect.stringContaining('forcing')] })
  const aborted = await run(['edges', 'drain', 'edge-a', '--abort', ...address])
  expect(aborted).toMatchObject({ code: 0, stdout: ['edge-a: does not drain; 40 devices'] })
  const refused = await run(['edges', 'drain', 'edge-b', '--abort', ...address])
  expect(refused).toEqual({ code: 2, stdout: [], stderr: ['DRAIN_FINAL: the drain of edge-b is over'] })
})

test.each([
  [['--rate', '1', '--over', '1m']],
  [['--abort', '--wait']],
  [['--abort', '--rate', '1']],
  [['--show', '--over', '1m']],
  [['--rate', '0.05']],
  [['--rate', 'fast']],
])('edges drain %j is a command line that asks for nothing', async (args) => {
  expect(await run(['edges', 'drain', 'edge-a', ...args, '--address', '127.0.0.1:1'])).toMatchObject({ code: 2, stdout: [] })
})

test('edges list says how far a draining edge is, and only that it drains when it does not answer', async () => {
  const edge = {
    name: 'edge',
    address: '127.0.0.1:7402',
    zone: '',
    connectionCount: 40,
    connectionLimit: 1_000,
    state: EdgeState.LIVE,
  }
  const listed = (edgeId: string) => ({ ...edge, edgeId, draining: true, leaseExpireTime: undefined })
  const address = await service({
    listEdges: () => ({ edges: [listed('edge-a'), listed('edge-b')], nextPageToken: '' }),
    getEdgeDrain: ({ edgeId }) => {
      if (edgeId === 'edge-b') throw new PushError('EDGE_UNREACHABLE', 'it does not answer')
      return { drain: drainIn(EdgeDrainState.EVICTING) }
    },
  })
  expect((await run(['edges', 'list', ...address])).stdout).toEqual([
    'EDGE    STATE  CONNECTIONS  LIMIT  DRAINING       ZONE  ADDRESS',
    'edge-a  LIVE   40           1000   evicting 60 %  -     127.0.0.1:7402',
    'edge-b  LIVE   40           1000   yes            -     127.0.0.1:7402',
  ])
  const [first] = (await run(['edges', 'list', '--json', ...address])).stdout
  expect(JSON.parse(first ?? '')).toMatchObject({ drain: { state: 'EVICTING' } })
})
