/** One event of an event stream. */
export interface StreamEvent {
  readonly name: string
  readonly data: string
}

/** Largest event, in UTF-16 units: far above what an edge sends. */
export const EVENT_LENGTH_MAX = 1_048_576

/**
 * Reads an event stream as it comes (WHATWG HTML, server-sent events): lines end with CR, LF or both, an empty one ends an event. Comments, ids and
 * retry times are read over: the SDK has reconnect rules of its own. `push` throws when an event grows too large.
 */
export function createEventParser(onEvent: (event: StreamEvent) => void): { push(text: string): void } {
  let rest = ''
  let begun = false
  let name = ''
  let data: string[] = []
  let length = 0

  function line(text: string): void {
    if (text === '') {
      if (data.length > 0) onEvent({ name: name === '' ? 'message' : name, data: data.join('\n') })
      name = ''
      data = []
      length = 0
      return
    }
    length += text.length
    const colon = text.indexOf(':')
    const field = colon < 0 ? text : text.slice(0, colon)
    const value = colon < 0 ? '' : text.slice(text[colon + 1] === ' ' ? colon + 2 : colon + 1)
    if (field === 'event') name = value
    else if (field === 'data') data.push(value)
  }

  return {
    push(text) {
      if (text === '') return
      rest += begun ? text : text.replace(/^\uFEFF/, '')
      begun = true
      let from = 0
      for (;;) {
        const end = lineEnd(rest, from)
        if (end === undefined) break
        line(rest.slice(from, end.at))
        from = end.next
      }
      rest = rest.slice(from)
      if (rest.length + length > EVENT_LENGTH_MAX) throw new Error(`an event is longer than ${EVENT_LENGTH_MAX}`)
    },
  }
}

/** Undefined while the line has not ended, or while it ends with a CR that an LF may follow. */
function lineEnd(text: string, from: number): { at: number; next: number } | undefined {
  for (let at = from; at < text.length; at++) {
    if (text[at] === '\n') return { at, next: at + 1 }
    if (text[at] !== '\r') continue
    if (at + 1 === text.length) return undefined
    return { at, next: text[at + 1] === '\n' ? at + 2 : at + 1 }
  }
  return undefined
}
