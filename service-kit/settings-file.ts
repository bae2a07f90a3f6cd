import { readFileSync, statSync } from 'node:fs'
import { path, type Setting, setting } from './config.ts'

type Env = Readonly<Record<string, string | undefined>>

/** What could be read, and what was wrong with the file. */
export interface FileSettings {
  /** The environment, with what the file says in place of variables of the same name. */
  readonly env: Env
  /** Whole lines, as in ConfigError. */
  readonly problems: readonly string[]
}

/** Larger files are refused: somebody named the wrong one. */
export const settingsFileLimitBytes = 256 * 1024

/** The setting that names the file: `<PREFIX>SETTINGS_FILE`. To be put into a service's definition, so that it is known there. */
export function settingsFileSetting(prefix: string): Setting<string | undefined> {
  return setting(`${prefix}SETTINGS_FILE`, path(), {
    optional: true,
    doc: 'File with more settings, `NAME=value` a line, read at the start and again on SIGHUP. What it names goes before the environment.',
  })
}

/**
 * Puts the settings file that the environment names over the environment. Lines are `NAME=value`, `#` begins a comment line, a value may stand
 * in quotes of one kind; an empty value means the default. Never throws.
 */
export function withSettingsFile(env: Env, prefix: string): FileSettings {
  const variable = `${prefix}SETTINGS_FILE`
  const file = env[variable]?.trim()
  if (file === undefined || file === '') return { env, problems: [] }
  const complain = (complaint: string): FileSettings => ({ env, problems: [`${variable} is "${file}", which ${complaint}`] })
  let content: string
  try {
    const found = statSync(file)
    if (!found.isFile()) return complain('is not a file')
    if (found.size > settingsFileLimitBytes) return complain(`holds more than ${settingsFileLimitBytes} bytes`)
    content = readFileSync(file, 'utf8')
  } catch (cause) {
    return complain(`cannot be read (${cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)})`)
  }
  const { values, problems } = parseSettings(content, prefix)
  return { env: { ...env, ...values }, problems: problems.map((problem) => `${file}: ${problem}`) }
}

/** Reads the lines of a settings file. Problems name the line, never a value: it may be a secret. */
export function parseSettings(
  content: string,
  prefix: string,
): { readonly values: Readonly<Record<string, string>>; readonly problems: readonly string[] } {
  const values = new Map<string, string>()
  const problems: string[] = []
  for (const [index, raw] of content
    .replace(/^\uFEFF/, '')
    .split('\n')
    .entries()) {
    const line = raw.trim()
    if (line === '' || line.startsWith('#')) continue
    const at = `line ${index + 1}`
    const [, name, value] = /^([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)$/.exec(line) ?? []
    if (name === undefined || value === undefined) problems.push(`${at} is not NAME=value`)
    else if (!name.startsWith(prefix)) problems.push(`${at} sets ${name}; expected names that begin with ${prefix}`)
    else if (name === `${prefix}SETTINGS_FILE`) problems.push(`${at} sets ${name}, which only the environment can`)
    else if (values.has(name)) problems.push(`${at} sets ${name} a second time`)
    else values.set(name, unquoted(value))
  }
  return { values: Object.fromEntries(values), problems }
}

function unquoted(value: string): string {
  const [, , inside] = /^(["'])(.*)\1$/.exec(value) ?? []
  return inside ?? value
}
