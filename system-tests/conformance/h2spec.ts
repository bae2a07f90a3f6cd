import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'

/** What h2spec found of one server, its cases named `section/number`, such as `http2/6.7/2`. */
export interface H2specReport {
  readonly caseCount: number
  /** What the server did instead, by case. */
  readonly failures: ReadonlyMap<string, string>
}

/** How it is run. */
export interface H2specOptions {
  readonly program: string
  /** `host:port` of a server without TLS. */
  readonly address: string
  /** For the report's file. */
  readonly folder: string
  /** How long each case waits for the server, in seconds. */
  readonly patienceS: number
  /** Only this case; default: all. */
  readonly only?: string
}

/** Runs h2spec against a server. Rejects when it ends without a report. */
export async function runH2spec({ program, address, folder, patienceS, only }: H2specOptions): Promise<H2specReport> {
  const [host = '', port = ''] = address.split(':')
  const report = join(folder, `h2spec-${port}.xml`)
  const args = ['-h', host, '-p', port, '-o', String(patienceS), '-j', report, ...(only === undefined ? [] : [only])]
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  const stderr = child.stderr.setEncoding('utf8').toArray()
  const [code] = await once(child, 'close')
  // 1: some cases failed.
  if (code !== 0 && code !== 1) throw new Error(`h2spec ended with ${code}: ${(await stderr).join('')}`)
  return parseReport(await readFile(report, 'utf8'))
}

/** The report quotes raw bytes of frames, so that it is not always XML. */
export function parseReport(text: string): H2specReport {
  const failures = new Map<string, string>()
  const counts = new Map<string, number>()
  for (const [, section = '', body = ''] of text.matchAll(/<testcase package="([^"]*)"[^>]*>(.*?)<\/testcase>/gs)) {
    const number = (counts.get(section) ?? 0) + 1
    counts.set(section, number)
    const [, words] = /<(?:error|failure)>(.*?)<\/(?:error|failure)>/s.exec(body) ?? []
    if (words !== undefined) failures.set(`${section}/${number}`, words.trim())
  }
  return { caseCount: [...counts.values()].reduce((sum, count) => sum + count, 0), failures }
}
