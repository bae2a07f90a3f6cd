import fc from 'fast-check'
import { expect, test } from 'vitest'
import { createEventParser, EVENT_LENGTH_MAX, type StreamEvent } from './event-parser.ts'

function parsed(...chunks: string[]): StreamEvent[] {
  const events: StreamEvent[] = []
  const parser = createEventParser((event) => events.push(event))
  for (const chunk of chunks) parser.push(chunk)
  return events
}

const stream =
  '\uFEFFretry: 1\n\n: a comment\r\nevent: ping\r\ndata: {"a":\r\ndata:1}\r\n\r\nid: 7\rdata:  x\r\revent: none\n\ndata\n\ndata: cut'
const events = [
  { name: 'ping', data: '{"a":\n1}' },
  { name: 'message', data: ' x' },
  { name: 'message', data: '' },
]

test('reads names and data, over all line ends, and leaves out what has no data or no end', () => {
  expect(parsed(stream)).toEqual(events)
})

test('the same however the stream is cut into pieces', () => {
  fc.assert(
    fc.property(fc.array(fc.nat(stream.length), { maxLength: 12 }), (cuts) => {
      const at = [0, ...cuts.sort((a, b) => a - b), stream.length]
      const chunks = at.slice(1).map((end, index) => stream.slice(at[index], end))
      expect(parsed(...chunks)).toEqual(events)
    }),
    { seed: 20_264, numRuns: 300 },
  )
})

test('an event that never ends is not kept for ever', () => {
  const half = 'x'.repeat(EVENT_LENGTH_MAX / 2)
  expect(() => parsed(half, half, 'x')).toThrow('longer than')
  expect(() => parsed(`data: ${half}\n`, `data: ${half}\n`, 'data: x\n')).toThrow('longer than')
  expect(parsed(`data: ${half}\n\n`, `data: ${half}\n\n`, `data: ${half}\n\n`)).toHaveLength(3)
})
