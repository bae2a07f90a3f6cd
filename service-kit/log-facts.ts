/** Facts of one log line as they may be written: errors as plain objects, bytes by their size, secrets not at all. */
export type WrittenFacts = Record<string, unknown>

const depthMax = 5
const reservedNames = new Set(['level', 'time', 'msg', 'service', 'pid'])
const secretName = /(^|_)(token|password|passphrase|secret|authorization|credential|cookie|payload)s?$/i

/** Turns what a caller handed over into what the log may hold. Never throws on odd values. */
export function writtenFacts(facts: Record<string, unknown>): WrittenFacts {
  const written: WrittenFacts = {}
  for (const [name, value] of Object.entries(facts)) {
    // A fact must not pass for the line's own level or time.
    written[reservedNames.has(name) ? `fact_${name}` : name] = writtenValue(name, value, 0)
  }
  return written
}

function writtenValue(name: string, value: unknown, depth: number): unknown {
  if (secretName.test(name) && value !== undefined) return '[secret]'
  if (typeof value === 'bigint') return value.toString()
  if (typeof value !== 'object' || value === null) return typeof value === 'function' ? '[function]' : value
  if (value instanceof Error) return writtenError(value, depth)
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`
  // biome-ignore lint/style/noRestrictedGlobals: formats a time that was given, and asks for none
  if (value instanceof Date) return Number.isNaN(value.getTime()) ? 'invalid date' : value.toISOString()
  if (depth >= depthMax) return '[deeper]'
  if (Array.isArray(value)) return value.map((item) => writtenValue('', item, depth + 1))
  if (value instanceof Map) return writtenObject(Object.fromEntries(value), depth)
  if (value instanceof Set) return writtenValue('', [...value], depth)
  return writtenObject(value, depth)
}

function writtenObject(value: object, depth: number): WrittenFacts {
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [name, writtenValue(name, inner, depth + 1)]))
}

function writtenError(error: Error, depth: number): WrittenFacts {
  const written: WrittenFacts = { name: error.name, message: error.message }
  if ('code' in error && error.code !== undefined) written.code = error.code
  if (error.stack !== undefined) written.stack = error.stack
  if (depth >= depthMax) return written
  if (error.cause !== undefined) written.cause = writtenValue('cause', error.cause, depth + 1)
  if (error instanceof AggregateError) written.errors = error.errors.map((inner) => writtenValue('', inner, depth + 1))
  return written
}
