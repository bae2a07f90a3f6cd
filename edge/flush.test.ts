import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { InboxReadyResult } from '../gen/push/internal/v1/edge.ts'
import { FlushResult, FlushStop } from '../gen/push/internal/v1/uplink.ts'
import { seededRandom } from '../service-kit/random.ts'
import { beltMaxMs, beltMinMs, Flush, type FlushEvent, pokesWaitingMax, refillMinMs, retryMaxMs, retryMinMs } from './flush.ts'
import { flushResponse } from './testing/fake-plane.ts'

const { ACCEPTED, NOT_CONNECTED } = InboxReadyResult
const { EMPTY, WAITING, STOPPED, READING } = FlushResult

/** A flush with its own time; `answers` tells what each poke was answered. */
function setup({ opened = true } = {}) {
  const flush = new Flush<string>(seededRandom(5))
  const answers: Record<string, InboxReadyResult> = {}
  const dropped: string[] = []
  const state = { nowMs: 0, calls: 0, found: 0 }
  const tell = (event: FlushEvent<string>) => {
    for (const effect of flush.handle(event, state.nowMs)) {
      if (effect.type === 'call') state.calls++
      if (effect.type === 'belt found') state.found += effect.count
      if (effect.type === 'drop') dropped.push(effect.poke)
      if (effect.type === 'answer') for (const poke of effect.pokes) answers[poke] = effect.result
    }
  }
  const poke = (name: string) => tell({ type: 'poke', poke: name })
  const respond = (
    result: FlushResult,
    more: { stop?: FlushStop; settledCount?: number; room?: boolean; refillMs?: number; unanswered?: string[] } = {},
  ) => {
    const { room = false, refillMs = 0, unanswered = [], ...fields } = more
    tell({ type: 'response', response: flushResponse(result, fields), room, refillMs, unanswered: new Set(unanswered) })
  }
  const pass = (ms: number) => {
    const until = state.nowMs + ms
    while (flush.nextDue <= until) {
      state.nowMs = flush.nextDue
      tell({ type: 'due' })
    }
    state.nowMs = until
  }
  if (opened) tell({ type: 'opened' })
  return { flush, state, answers, dropped, tell, poke, respond, pass, called: () => tell({ type: 'called' }) }
}

describe('a flush starts', () => {
  test('when the session opens with mail, and not without', () => {
    const { tell, state } = setup({ opened: false })
    tell({ type: 'mail' })
    expect(state.calls).toBe(0)
    tell({ type: 'opened' })
    expect(state.calls).toBe(1)
    expect(setup().state.calls).toBe(0)
  })

  test('on a poke; one that comes while the session is registering is remembered until it opens', () => {
    const { tell, poke, state, answers, respond, called } = setup({ opened: false })
    poke('a')
    expect(state.calls).toBe(0)
    expect(answers).toEqual({})
    tell({ type: 'opened' })
    expect(state.calls).toBe(1)
    called()
    respond(READING)
    expect(answers).toEqual({ a: ACCEPTED })
  })

  test('one at a time: pokes before its turn join it', () => {
    const { poke, state, called, respond, answers } = setup()
    poke('a')
    poke('b')
    expect(state.calls).toBe(1)
    called()
    respond(READING)
    respond(EMPTY)
    expect(answers).toEqual({ a: ACCEPTED, b: ACCEPTED })
    expect(state.calls).toBe(1)
  })
})

describe('a poke', () => {
  test('is answered when the inbox has been read, not before', () => {
    const { poke, called, respond, answers } = setup()
    poke('a')
    called()
    expect(answers).toEqual({})
    respond(READING)
    expect(answers).toEqual({ a: ACCEPTED })
  })

  test('after the call was made waits for the next flush, which starts when this one ends', () => {
    const { poke, called, respond, answers, state } = setup()
    poke('a')
    called()
    poke('late')
    respond(READING)
    poke('later')
    expect(answers).toEqual({ a: ACCEPTED })
    expect(state.calls).toBe(1)
    respond(WAITING)
    expect(state.calls).toBe(2)
    called()
    expect(answers).toEqual({ a: ACCEPTED })
    respond(READING)
    expect(answers).toEqual({ a: ACCEPTED, late: ACCEPTED, later: ACCEPTED })
  })

  test('stays unanswered while calls fail before the inbox is read', () => {
    const { poke, called, respond, tell, answers, pass, state } = setup()
    poke('a')
    called()
    tell({ type: 'failed' })
    expect(answers).toEqual({})
    pass(retryMaxMs)
    expect(state.calls).toBe(2)
    called()
    respond(READING)
    expect(answers).toEqual({ a: ACCEPTED })
  })

  test('is answered NOT_CONNECTED when the session ends before, also while registering, and after it', () => {
    for (const opened of [true, false]) {
      const { poke, tell, answers, called } = setup({ opened })
      poke('a')
      if (opened) called()
      poke('b')
      tell({ type: 'session ended' })
      expect(answers).toEqual({ a: NOT_CONNECTED, b: NOT_CONNECTED })
      poke('c')
      expect(answers.c).toBe(NOT_CONNECTED)
    }
  })

  test('is let go when too many wait: the oldest first', () => {
    const { poke, dropped } = setup({ opened: false })
    for (let index = 0; index <= pokesWaitingMax; index++) poke(`p${index}`)
    expect(dropped).toEqual(['p0'])
  })
})

describe('a flush that ends', () => {
  const ended = (result: FlushResult, more: Parameters<ReturnType<typeof setup>['respond']>[1] = {}) => {
    const made = setup()
    made.poke('a')
    made.called()
    made.respond(READING)
    made.respond(result, more)
    return made
  }

  test.each([EMPTY, WAITING])('as %i is done', (result) => {
    const { state, flush, pass } = ended(result)
    pass(beltMinMs - 1)
    expect(state.calls).toBe(1)
    expect(flush.phase).toBe('idle')
  })

  test('WAITING: the next one comes with an answer to what was unanswered, once', () => {
    const { tell, state } = ended(WAITING, { unanswered: ['m'] })
    tell({ type: 'settled', messageId: 'other' })
    expect(state.calls).toBe(1)
    tell({ type: 'settled', messageId: 'm' })
    tell({ type: 'settled', messageId: 'm' })
    expect(state.calls).toBe(2)
  })

  test.each([
    [STOPPED, FlushStop.ROUTER],
    [STOPPED, 99 as FlushStop],
    [77 as FlushResult, FlushStop.UNSPECIFIED],
  ])('as %i with %i is repeated after 1 to 30 s, for as long as the session lives', (result, stop) => {
    const { state, pass, called, respond, flush, tell } = ended(result, { stop })
    const waits: number[] = []
    for (let attempt = 0; attempt < 12; attempt++) {
      waits.push(flush.nextDue - state.nowMs)
      pass(flush.nextDue - state.nowMs)
      expect(state.calls).toBe(attempt + 2)
      called()
      if (attempt % 2 === 0) respond(READING)
      tell({ type: 'failed' })
    }
    expect(Math.min(...waits)).toBeGreaterThanOrEqual(retryMinMs)
    expect(Math.max(...waits)).toBeLessThan(retryMaxMs)
    expect(Math.max(...waits)).toBeGreaterThan(8_000)
    tell({ type: 'session ended' })
    expect(flush.nextDue).toBe(Number.POSITIVE_INFINITY)
  })

  test('RATE_LIMITED waits until the rate allows more, time after time', () => {
    const { state, pass, called, respond } = ended(STOPPED, { stop: FlushStop.RATE_LIMITED, refillMs: 700 })
    for (let calls = 1; calls < 20; calls++) {
      pass(699)
      expect(state.calls).toBe(calls)
      pass(1)
      expect(state.calls).toBe(calls + 1)
      called()
      respond(READING)
      respond(STOPPED, { stop: FlushStop.RATE_LIMITED, refillMs: 700 })
    }
  })

  test('RATE_LIMITED of a rate that allows more by now does not spin', () => {
    const { state, pass } = ended(STOPPED, { stop: FlushStop.RATE_LIMITED, refillMs: 0 })
    pass(refillMinMs - 1)
    expect(state.calls).toBe(1)
    pass(1)
    expect(state.calls).toBe(2)
  })

  test('SLOW_CONSUMER waits for room', () => {
    const { state, pass, tell } = ended(STOPPED, { stop: FlushStop.SLOW_CONSUMER })
    pass(beltMinMs - 1)
    expect(state.calls).toBe(1)
    tell({ type: 'room' })
    expect(state.calls).toBe(2)
  })

  test('SLOW_CONSUMER with room all the same does not spin', () => {
    const { state, pass } = ended(STOPPED, { stop: FlushStop.SLOW_CONSUMER, room: true })
    pass(retryMinMs - 1)
    expect(state.calls).toBe(1)
    pass(retryMaxMs)
    expect(state.calls).toBe(2)
  })

  test('a poke shortens the wait of one that rests or is full, but not below a second', () => {
    for (const stop of [FlushStop.ROUTER, FlushStop.SLOW_CONSUMER]) {
      const { state, pass, poke } = ended(STOPPED, { stop })
      poke('b')
      pass(retryMinMs - 1)
      expect(state.calls).toBe(1)
      pass(1)
      expect(state.calls).toBe(2)
    }
  })

  test('NOT_CONNECTED is nobody’s to repeat, unless pokes came meanwhile', () => {
    const { state, pass, flush } = ended(STOPPED, { stop: FlushStop.NOT_CONNECTED })
    pass(beltMinMs - 1)
    expect([state.calls, flush.phase]).toEqual([1, 'idle'])
    const poked = setup()
    poked.poke('a')
    poked.called()
    poked.poke('b')
    poked.respond(READING)
    poked.respond(STOPPED, { stop: FlushStop.NOT_CONNECTED })
    expect(poked.state.calls).toBe(2)
  })

  test('NOT_CONNECTED before the inbox was read leaves its pokes waiting for a repeat', () => {
    const { poke, called, respond, answers, pass, state } = setup()
    poke('a')
    called()
    respond(STOPPED, { stop: FlushStop.NOT_CONNECTED })
    expect(answers).toEqual({})
    pass(retryMaxMs)
    expect(state.calls).toBe(2)
  })
})

describe('the belt', () => {
  const seen = () => {
    const made = setup()
    made.poke('a')
    made.called()
    made.respond(READING)
    made.respond(EMPTY)
    return made
  }

  test('a session that saw mail looks once more after 5 to 10 min; one that saw none never does', () => {
    const { state, pass, called, respond, flush } = seen()
    pass(beltMinMs - 1)
    expect(state.calls).toBe(1)
    pass(beltMaxMs - beltMinMs)
    expect(state.calls).toBe(2)
    called()
    respond(EMPTY)
    expect(state.found).toBe(0)
    expect(flush.nextDue).toBe(Number.POSITIVE_INFINITY)
    expect(setup().flush.nextDue).toBe(Number.POSITIVE_INFINITY)
  })

  test('what it finds is counted, and it looks again', () => {
    const { state, pass, called, respond, flush } = seen()
    pass(beltMaxMs)
    called()
    respond(READING)
    respond(EMPTY, { settledCount: 3 })
    expect(state.found).toBe(3)
    expect(flush.nextDue).toBeLessThan(Number.POSITIVE_INFINITY)
  })

  test('what a poke announced meanwhile, or the device had not answered yet, is no find', () => {
    const poked = seen()
    poked.pass(beltMaxMs)
    poked.called()
    poked.poke('b')
    poked.respond(EMPTY, { settledCount: 1 })
    const waiting = setup()
    waiting.poke('a')
    waiting.called()
    waiting.respond(WAITING, { unanswered: ['m'] })
    waiting.pass(beltMaxMs)
    waiting.called()
    waiting.respond(EMPTY, { settledCount: 1 })
    expect([poked.state.found, waiting.state.found]).toEqual([0, 0])
    expect(waiting.state.calls).toBe(2)
  })
})

test('whatever happens: a poke is answered ACCEPTED only by a read after it came, and none stays when the session has ended', () => {
  const step = fc.constantFrom(
    'poke',
    'turn',
    'read',
    'empty',
    'waiting',
    'router',
    'slow',
    'gone',
    'failed',
    'room',
    'due',
    'open',
    'mail',
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, opened) => {
      const flush = new Flush<number>(seededRandom(1))
      let nowMs = 0
      let pokes = 0
      let asked = false
      /** Pokes that came before the call under way was made; undefined when none is. */
      let before: number | undefined
      const open = new Set<number>()
      let isOpen = false
      const tell = (event: FlushEvent<number>, readable: number) => {
        for (const effect of flush.handle(event, nowMs)) {
          if (effect.type === 'call') {
            expect(asked || before !== undefined).toBe(false) // one at a time
            expect(isOpen || event.type === 'opened').toBe(true)
            asked = true
          }
          if (effect.type === 'answer') {
            for (const poke of effect.pokes) {
              expect(open.delete(poke)).toBe(true) // once
              if (effect.result === ACCEPTED) expect(poke).toBeLessThan(readable)
              else expect(event.type).toBe('session ended')
            }
          }
        }
      }
      const respond = (result: FlushResult, stop: FlushStop = FlushStop.UNSPECIFIED) => {
        if (before === undefined) return
        const readable = before
        if (result !== READING) before = undefined
        tell(
          { type: 'response', response: flushResponse(result, { stop }), room: false, refillMs: 0, unanswered: new Set() },
          readable,
        )
      }
      const run: Record<string, () => void> = {
        poke: () => {
          open.add(pokes)
          tell({ type: 'poke', poke: pokes++ }, 0)
        },
        turn: () => {
          if (!asked) return
          asked = false
          before = pokes
          tell({ type: 'called' }, 0)
        },
        read: () => respond(READING),
        empty: () => respond(EMPTY),
        waiting: () => respond(WAITING),
        router: () => respond(STOPPED, FlushStop.ROUTER),
        slow: () => respond(STOPPED, FlushStop.SLOW_CONSUMER),
        gone: () => respond(STOPPED, FlushStop.NOT_CONNECTED),
        failed: () => {
          if (before === undefined) return
          before = undefined
          tell({ type: 'failed' }, 0)
        },
        room: () => tell({ type: 'room' }, 0),
        mail: () => tell({ type: 'mail' }, 0),
        due: () => {
          if (flush.nextDue === Number.POSITIVE_INFINITY) return
          nowMs = Math.max(nowMs, flush.nextDue)
          tell({ type: 'due' }, 0)
        },
        open: () => {
          tell({ type: 'opened' }, 0)
          isOpen = true
        },
      }
      for (const name of opened ? ['open', ...steps] : steps) run[name]?.()
      // Left alone, with a router that answers, every poke of an open session is answered.
      if (isOpen) {
        for (let turn = 0; turn < 10; turn++) for (const name of ['turn', 'read', 'empty', 'room', 'due']) run[name]?.()
        expect(open.size).toBe(0)
      }
      tell({ type: 'session ended' }, 0)
      expect(open.size).toBe(0)
    }),
    { numRuns: 2_000 },
  )
})
