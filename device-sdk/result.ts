/** What a message's work came to, as it travels: without what is unset, and not to be changed any more. */
export interface Result {
  readonly status: 'ok' | 'failed'
  /** JSON. */
  readonly data?: unknown
  readonly message?: string
}

/** Largest data of a result, in bytes of JSON. */
export const RESULT_DATA_LIMIT_BYTES = 48 * 1024

const wordsLengthMax = 1024

/** What a handler returned. Data that cannot travel makes it a failure that says so. */
export function resultOf(value: unknown): Result {
  let text: string | undefined
  try {
    text = JSON.stringify(value)
  } catch (error) {
    return failedResult(`the handler's result cannot be written as JSON: ${messageOf(error)}`)
  }
  // Nothing, or nothing that JSON knows.
  if (text === undefined) return { status: 'ok' }
  if (bytesOf(text) > RESULT_DATA_LIMIT_BYTES) {
    return failedResult(`the handler's result has more than ${RESULT_DATA_LIMIT_BYTES} bytes of JSON`)
  }
  // A copy: the app may go on to change what it returned.
  return { status: 'ok', data: JSON.parse(text) }
}

/** What a handler threw. */
export function failedResult(message: string): Result {
  return { status: 'failed', message: words(message) }
}

/** About how many bytes a result keeps. */
export function sizeOfResult({ data, message = '' }: Result): number {
  return (data === undefined ? 0 : JSON.stringify(data).length) + message.length
}

/** A text for a person to read, cut to what the protocol takes. */
export function words(text: string): string {
  return text.slice(0, wordsLengthMax).toWellFormed()
}

/** What was thrown, in its own words. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function bytesOf(text: string): number {
  return new TextEncoder().encode(text).length
}
