import { closeSync, existsSync, fstatSync, openSync, readSync } from 'node:fs'
import { StringDecoder } from 'node:string_decoder'

/** One line of a service's log. */
export interface LogLine {
  readonly level: string
  /** ms since the Unix epoch. */
  readonly time: number
  readonly phrase: string
  readonly facts: Readonly<Record<string, unknown>>
}

/** Reads the log file of one process as it grows. */
export class ProcessLog {
  readonly file: string
  /** Parsed lines so far, oldest first. */
  readonly lines: LogLine[] = []
  /** What else was written: plain words on standard error. */
  readonly words: string[] = []
  readonly #decoder = new StringDecoder('utf8')
  #readBytes = 0
  #rest = ''

  constructor(file: string) {
    this.file = file
  }

  /** Takes in what has been written since the last call. */
  read(): void {
    if (!existsSync(this.file)) return
    const descriptor = openSync(this.file, 'r')
    try {
      const grown = Buffer.alloc(fstatSync(descriptor).size - this.#readBytes)
      const length = readSync(descriptor, grown, 0, grown.length, this.#readBytes)
      this.#readBytes += length
      this.#rest += this.#decoder.write(grown.subarray(0, length))
    } finally {
      closeSync(descriptor)
    }
    const texts = this.#rest.split('\n')
    // The last line may be half written.
    this.#rest = texts.pop() ?? ''
    for (const text of texts) this.#take(text)
  }

  #take(text: string): void {
    if (text === '') return
    const line = parseLine(text)
    if (line === undefined) this.words.push(text)
    else this.lines.push(line)
  }
}

/** Undefined for what is no line of the structured log. */
export function parseLine(text: string): LogLine | undefined {
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof parsed !== 'object' || parsed === null || !('msg' in parsed) || !('level' in parsed) || !('time' in parsed)) {
    return undefined
  }
  const { level, time, msg, ...facts } = parsed
  return { level: String(level), time: Date.parse(String(time)), phrase: String(msg), facts }
}
