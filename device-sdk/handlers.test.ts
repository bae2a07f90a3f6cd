import { expect, test } from 'vitest'
import type { Answer } from './answers.ts'
import { createHandlers, type HandlersByClass, type HandlersOptions } from './handlers.ts'
import type { DeviceMessage } from './message.ts'
import { createSeen, type SeenStore } from './seen.ts'
import { messageFrame, SERVER_TIME } from './testing/scripted-edge.ts'
import { SteeredClock, settled } from './testing/steered-clock.ts'

function set(handlers: HandlersByClass, options: Partial<HandlersOptions> = {}) {
  const answers: Answer[] = []
  const outcomes: string[] = []
  const failures: string[] = []
  const clock = new SteeredClock()
  const made = createHandlers({
    handlers,
    seen: createSeen(100, 1_000),
    seenStore: undefined,
    seenStoreTimeoutMs: 2_000,
    clock,
    queuedMax: 3,
    isExpired: (expireTime) => expireTime < SERVER_TIME,
    onAnswer: (answer) => answers.push(answer),
    onHandled: (outcome, id) => outcomes.push(`${outcome} ${id}`),
    onStoreFailure: (message) => failures.push(message),
    ...options,
  })
  return { handlers: made, answers, outcomes, failures, clock }
}

/** A handler whose calls a test ends one by one. */
function held() {
  const calls: { message: DeviceMessage; resolve: () => void; reject: (error: Error) => void }[] = []
  const handler = (message: DeviceMessage) =>
    new Promise<void>((resolve, reject) => {
      calls.push({ message, resolve, reject })
    })
  return { calls, handler }
}

test('a message is acknowledged after its handler has returned, not before', async () => {
  const { calls, handler } = held()
  const { handlers, answers } = set(handler)
  handlers.receive(messageFrame('m'))
  await settled()
  expect(answers).toEqual([])
  calls[0]?.resolve()
  await settled()
  expect(answers).toEqual([{ id: 'm' }])
})

test('a handler that throws, now or later, refuses the message with its words', async () => {
  const { handlers, answers } = set({
    USER: () => {
      throw new Error('no disk')
    },
    DIAGNOSTIC: async () => {
      throw 'no words'
    },
  })
  handlers.receive(messageFrame('u'))
  handlers.receive(messageFrame('d', { class: 'DIAGNOSTIC' }))
  handlers.receive(messageFrame('r', { class: 'RECOVERY' }))
  await settled()
  expect(answers.sort((a, b) => b.id.localeCompare(a.id))).toEqual([
    { id: 'u', refusal: 'no disk' },
    { id: 'r', refusal: 'no handler for messages of class RECOVERY' },
    { id: 'd', refusal: 'no words' },
  ])
})

test('a hung USER handler holds up its own class only', async () => {
  const user = held()
  const handled: string[] = []
  const { handlers, answers } = set({ USER: user.handler, RECOVERY: (message) => void handled.push(message.id) })
  handlers.receive(messageFrame('u1'))
  handlers.receive(messageFrame('u2'))
  handlers.receive(messageFrame('r1', { class: 'RECOVERY' }))
  await settled()
  expect(user.calls.map((call) => call.message.id)).toEqual(['u1'])
  expect(handled).toEqual(['r1'])
  expect(answers).toEqual([{ id: 'r1' }])
})

test('messages of a class are handled one after the other, in the order they came', async () => {
  const { calls, handler } = held()
  const { handlers } = set(handler)
  for (const id of ['a', 'b']) handlers.receive(messageFrame(id))
  await settled()
  calls[0]?.resolve()
  await settled()
  expect(calls.map((call) => call.message.id)).toEqual(['a', 'b'])
})

test('a handler never runs within the event that brought its message', async () => {
  const handled: string[] = []
  const { handlers } = set((message) => void handled.push(message.id))
  handlers.receive(messageFrame('m'))
  expect(handled).toEqual([])
  await settled()
  expect(handled).toEqual(['m'])
})

test('a repeat is answered again the same way, and not handled again', async () => {
  const { calls, handler } = held()
  const { handlers, answers, outcomes } = set(handler)
  handlers.receive(messageFrame('m'))
  await settled()
  handlers.receive(messageFrame('m', { redelivered: true }))
  await settled()
  expect(answers).toEqual([])
  calls[0]?.reject(new Error('busy'))
  await settled()
  expect(answers).toEqual([{ id: 'm', refusal: 'busy' }])
  handlers.receive(messageFrame('m', { redelivered: true }))
  await settled()
  expect(answers).toEqual([
    { id: 'm', refusal: 'busy' },
    { id: 'm', refusal: 'busy' },
  ])
  expect(calls).toHaveLength(1)
  expect(outcomes).toEqual(['repeated m', 'refused m', 'repeated m'])
})

test('a message whose time has passed when its turn comes is refused, not handed over', async () => {
  const handled: string[] = []
  const { handlers, answers } = set((message) => void handled.push(message.id))
  handlers.receive(messageFrame('late', { expire_time: SERVER_TIME - 1 }))
  handlers.receive(messageFrame('in-time', { expire_time: SERVER_TIME }))
  await settled()
  expect(handled).toEqual(['in-time'])
  expect(answers).toEqual([{ id: 'late', refusal: 'expired before the handler could take it' }, { id: 'in-time' }])
})

test('above the bound a message is left unanswered and is new when it comes again', async () => {
  const { calls, handler } = held()
  const { handlers, answers, outcomes } = set(handler, { queuedMax: 1 })
  handlers.receive(messageFrame('a'))
  await settled()
  handlers.receive(messageFrame('b'))
  handlers.receive(messageFrame('c'))
  expect(outcomes).toEqual(['overflowed c'])
  for (const index of [0, 1]) {
    calls[index]?.resolve()
    await settled()
  }
  handlers.receive(messageFrame('c', { redelivered: true }))
  await settled()
  expect(calls.map((call) => call.message.id)).toEqual(['a', 'b', 'c'])
  expect(answers.map((answer) => answer.id)).toEqual(['a', 'b'])
})

test('stopping waits for the running handler and forgets what has not started', async () => {
  const { calls, handler } = held()
  const { handlers, answers } = set(handler)
  handlers.receive(messageFrame('running'))
  handlers.receive(messageFrame('queued'))
  await settled()
  let stopped = false
  const stopping = handlers.stop().then(() => {
    stopped = true
  })
  await settled()
  expect(stopped).toBe(false)
  calls[0]?.resolve()
  await stopping
  handlers.receive(messageFrame('after'))
  await settled()
  expect(answers).toEqual([{ id: 'running' }])
  expect(calls).toHaveLength(1)
})

/** A handler whose calls a test ends one by one, with a result. */
function heldResult() {
  const calls: { resolve: (value: unknown) => void; reject: (error: Error) => void }[] = []
  const handler = () => new Promise<unknown>((resolve, reject) => void calls.push({ resolve, reject }))
  return { calls, handler }
}

const wanting = (id: string, fields = {}) => messageFrame(id, { confirm: 'RESULT', ...fields })

test('a message whose result is wanted is acknowledged when it is handed over, and has its result when the handler returns', async () => {
  const { calls, handler } = heldResult()
  const { handlers, answers, outcomes } = set(handler)
  handlers.receive(wanting('a'))
  handlers.receive(wanting('b'))
  await settled()
  // b has not been handed over yet.
  expect(answers).toEqual([{ id: 'a' }])
  calls[0]?.resolve({ files: 3 })
  await settled()
  expect(answers).toEqual([{ id: 'a' }, { id: 'a', result: { status: 'ok', data: { files: 3 } } }, { id: 'b' }])
  calls[1]?.reject(new Error('disk full'))
  await settled()
  expect(answers.at(-1)).toEqual({ id: 'b', result: { status: 'failed', message: 'disk full' } })
  expect(outcomes).toEqual(['handled a', 'refused b'])
})

test('without a value the result is done, with one that cannot travel it failed and says so', async () => {
  const values = [undefined, () => 1, 5n, 'x'.repeat(48 * 1024)]
  const { handlers, answers } = set(() => values.shift())
  for (const id of ['nothing', 'function']) {
    handlers.receive(wanting(id))
    await settled()
    expect(answers.at(-1)).toEqual({ id, result: { status: 'ok' } })
  }
  for (const id of ['bigint', 'large']) {
    handlers.receive(wanting(id))
    await settled()
    expect(answers.at(-1)).toMatchObject({ id, result: { status: 'failed', message: expect.stringContaining('result') } })
  }
})

test('what the app does to its value afterwards changes no result', async () => {
  const value = { n: 1 }
  const { handlers, answers } = set(() => value)
  handlers.receive(wanting('m'))
  await settled()
  value.n = 2
  expect(answers.at(-1)?.result?.data).toEqual({ n: 1 })
})

test('a repeat while the handler works is acknowledged again, one afterwards gets the result again; the work is done once', async () => {
  const { calls, handler } = heldResult()
  const { handlers, answers } = set(handler)
  handlers.receive(wanting('m'))
  await settled()
  handlers.receive(wanting('m', { redelivered: true }))
  await settled()
  expect(answers).toEqual([{ id: 'm' }, { id: 'm' }])
  calls[0]?.resolve(7)
  await settled()
  handlers.receive(wanting('m', { redelivered: true }))
  await settled()
  const result = { id: 'm', result: { status: 'ok', data: 7 } }
  expect(answers.slice(2)).toEqual([result, result])
  expect(calls).toHaveLength(1)
})

test('a message whose result is wanted and that never reaches a handler is refused, not acknowledged', async () => {
  const { handlers, answers } = set({ DIAGNOSTIC: () => 1 })
  handlers.receive(wanting('late', { class: 'DIAGNOSTIC', expire_time: SERVER_TIME - 1 }))
  handlers.receive(wanting('nobody', { class: 'USER' }))
  handlers.receive(wanting('junk', { class: 'DIAGNOSTIC', data: undefined, data_base64: 'e3s=' }))
  await settled()
  expect(answers.map(({ refusal }) => refusal).sort()).toEqual([
    'expired before the handler could take it',
    'no handler for messages of class USER',
    'the payload is not JSON',
  ])
})

test('what a handler returns for other messages goes nowhere', async () => {
  const { handlers, answers } = set(() => ({ secret: 1 }))
  handlers.receive(messageFrame('m'))
  await settled()
  expect(answers).toEqual([{ id: 'm' }])
})

function memoryStore(): SeenStore & { ids: Set<string> } {
  const ids = new Set<string>()
  return { ids, has: (id) => ids.has(id), add: (id) => void ids.add(id) }
}

test('a recovery command that restarts the device is acknowledged, not run again, by the next process', async () => {
  const seenStore = memoryStore()
  const first = set(() => new Promise(() => {}), { seenStore })
  first.handlers.receive(messageFrame('reboot', { class: 'RECOVERY' }))
  await settled()
  expect(first.answers).toEqual([])

  const { calls, handler } = held()
  const second = set(handler, { seenStore })
  second.handlers.receive(messageFrame('reboot', { class: 'RECOVERY', redelivered: true }))
  second.handlers.receive(messageFrame('greet', { class: 'USER' }))
  await settled()
  expect(second.answers).toEqual([{ id: 'reboot' }])
  expect(calls.map((call) => call.message.id)).toEqual(['greet'])
  expect(seenStore.ids).toEqual(new Set(['reboot']))
  expect(second.clock.pendingTimers).toBe(0)
})

test('a store that fails or hangs does not keep a recovery command from running', async () => {
  const handled: string[] = []
  const failing: SeenStore = {
    has: () => Promise.reject(new Error('disk full')),
    add: () => new Promise(() => {}),
  }
  const { handlers, answers, failures, clock } = set((message) => void handled.push(message.id), { seenStore: failing })
  handlers.receive(messageFrame('heal', { class: 'RECOVERY' }))
  await clock.advance(1_999)
  expect(handled).toEqual([])
  await clock.advance(1)
  expect(handled).toEqual(['heal'])
  expect(answers).toEqual([{ id: 'heal' }])
  expect(failures).toEqual(['disk full', 'the store of seen ids does not answer'])
  expect(clock.pendingTimers).toBe(0)
})
