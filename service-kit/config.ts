import type { SettingType } from './setting-types.ts'
import { StartError } from './start-error.ts'

export * from './setting-types.ts'

/** One thing that an operator may set, by an environment variable. */
export interface Setting<T> {
  /** The variable. */
  readonly name: string
  /** What it is for, its unit, its consequences. One or two sentences, for the docs. */
  readonly doc: string
  /** Never shown, neither in errors nor in descriptions. */
  readonly secret: boolean
  /** As an operator would type the default; undefined when there is none. */
  readonly defaultText: string | undefined
  readonly expected: string
  /** Neither set nor defaulted is allowed. */
  readonly optional: boolean
  /** May change while the service runs. */
  readonly reloadable: boolean
  /** The value of a typed text, or of none. */
  read(typed: string | undefined): { ok: true; value: T } | { ok: false; problem: 'missing' | 'wrong' }
  /** The value as an operator would type it. */
  format(value: T): string
}

/** All settings of one service. */
export interface ConfigDefinition<C> {
  readonly service: string
  /** Variables that begin with it belong to this service: unknown ones are problems. */
  readonly prefix: string
  readonly settings: { readonly [K in keyof C]: Setting<C[K]> }
  /** Problems between settings, as whole lines; looked for only when each setting by itself holds. */
  readonly check: (config: Readonly<C>) => readonly string[]
}

/** The config cannot be used. The message lists every problem, one a line, by the names that the operator typed. */
export class ConfigError extends StartError {
  override readonly name = 'ConfigError'
  override readonly exitCode = 2
  readonly problems: readonly string[]

  constructor(service: string, problems: readonly string[]) {
    super([`${service} cannot start:`, ...problems.map((problem) => `  ${problem}`)].join('\n'))
    this.problems = problems
  }
}

interface SettingOptions {
  readonly doc: string
  readonly secret?: boolean
  /** May change while the service runs: whoever uses it reads it from the live config each time, or asks to be told. Default false. */
  readonly reloadable?: boolean
}

/** A setting with a default, one that may stay unset (`optional`), or one that the operator has to set. */
export function setting<T>(
  name: string,
  type: SettingType<T>,
  options: SettingOptions & { readonly default?: NoInfer<T> },
): Setting<T>
export function setting<T>(
  name: string,
  type: SettingType<T>,
  options: SettingOptions & { readonly optional: true },
): Setting<T | undefined>
export function setting<T>(
  name: string,
  type: SettingType<T>,
  options: SettingOptions & { readonly default?: T; readonly optional?: true },
): Setting<T | undefined> {
  const { doc, secret = false, optional = false, reloadable = false } = options
  const fallback = options.default
  return {
    name,
    doc,
    secret,
    optional,
    reloadable,
    expected: type.expected,
    defaultText: fallback === undefined ? undefined : type.format(fallback),
    read(typed) {
      if (typed === undefined) {
        return fallback === undefined && !optional ? { ok: false, problem: 'missing' } : { ok: true, value: fallback }
      }
      const parsed = type.schema.safeParse(typed.trim())
      return parsed.success ? { ok: true, value: parsed.data } : { ok: false, problem: 'wrong' }
    },
    format: (value) => (value === undefined ? '' : type.format(value)),
  }
}

/** Puts settings together. The prefix is by default the service's name in capitals with `_`: `EDGE_`. */
export function defineConfig<C extends object>(
  service: string,
  settings: { readonly [K in keyof C]: Setting<C[K]> },
  options: { readonly prefix?: string; readonly check?: (config: Readonly<C>) => readonly string[] } = {},
): ConfigDefinition<C> {
  const { prefix = envPrefix(service), check = () => [] } = options
  return { service, prefix, settings, check }
}

/** `EDGE_` for `edge`. */
export function envPrefix(service: string): string {
  return `${service.toUpperCase().replaceAll('-', '_')}_`
}

/** The config of a definition. */
export type ConfigOf<D> = D extends ConfigDefinition<infer C> ? Readonly<C> : never

/** Reads, checks and freezes the config. An empty variable counts as not set. Throws ConfigError with every problem. */
export function readConfig<C extends object>(
  definition: ConfigDefinition<C>,
  env: Readonly<Record<string, string | undefined>>,
): Readonly<C> {
  const problems: string[] = []
  const config: Partial<C> = {}
  for (const key of settingKeys(definition)) {
    const setting = definition.settings[key]
    const typed = env[setting.name] || undefined
    const result = setting.read(typed)
    if (result.ok) config[key] = result.value
    else problems.push(`${setting.name} ${complaint(setting, typed)}; expected ${setting.expected}`)
  }
  problems.push(...unknownVariables(definition, env))
  if (problems.length === 0) problems.push(...definition.check(config as C))
  if (problems.length > 0) throw new ConfigError(definition.service, problems)
  return Object.freeze(config as C)
}

/** What is in force, by the operator's names, secrets masked. For the log line at the start. */
export function describeConfig<C extends object>(definition: ConfigDefinition<C>, config: Readonly<C>): Record<string, string> {
  const described: Record<string, string> = {}
  for (const key of settingKeys(definition)) {
    const setting = definition.settings[key]
    described[setting.name] = shownSetting(setting, config[key])
  }
  return described
}

/** A value as it may be shown in logs. */
export function shownSetting<T>(setting: Setting<T>, value: T): string {
  if (value === undefined) return '(unset)'
  return setting.secret ? '(set, not shown)' : setting.format(value)
}

/** A Markdown table of all settings, for the docs. */
export function settingsTable<C extends object>(definition: ConfigDefinition<C>): string {
  const cell = (content: string) => content.replaceAll('|', '\\|').replaceAll('\n', ' ')
  const rows = settingKeys(definition).map((key) => {
    const { name, expected, defaultText, optional, secret, reloadable, doc } = definition.settings[key]
    const byDefault = defaultText !== undefined ? (secret ? 'a secret' : `\`${defaultText}\``) : optional ? 'unset' : 'required'
    return `| \`${name}\` | ${cell(expected)} | ${cell(byDefault)} | ${cell(doc)}${reloadable ? ' _Reloadable._' : ''} |`
  })
  return ['| setting | value | default | meaning |', '|---|---|---|---|', ...rows].join('\n')
}

function settingKeys<C extends object>(definition: ConfigDefinition<C>): (keyof C)[] {
  return Object.keys(definition.settings) as (keyof C)[]
}

/** Of what was typed: a file pasted by mistake must not bury the other problems. */
const shownMaxChars = 200

function complaint(setting: { readonly secret: boolean }, typed: string | undefined): string {
  if (typed === undefined) return 'is missing'
  if (setting.secret) return 'has a wrong value (not shown)'
  return typed.length > shownMaxChars ? `begins with "${typed.slice(0, shownMaxChars)}"` : `is "${typed}"`
}

/** What container platforms set by themselves for a neighbour service of that name: `EDGE_SERVICE_HOST`, `EDGE_PORT=tcp://…`. */
const platformName = /_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)$/
const platformValue = /^(tcp|udp|sctp):\/\//

function unknownVariables<C extends object>(
  definition: ConfigDefinition<C>,
  env: Readonly<Record<string, string | undefined>>,
): string[] {
  const names = settingKeys(definition).map((key) => definition.settings[key].name)
  const known = new Set<string>(names)
  return Object.keys(env)
    .filter((name) => name.startsWith(definition.prefix) && !known.has(name) && env[name] !== undefined)
    .filter((name) => !platformName.test(name) && !platformValue.test(env[name] ?? ''))
    .sort()
    .map((name) => {
      const near = nearest(name, names)
      return `${name} is not a setting of ${definition.service}${near === undefined ? '' : `; did you mean ${near}?`}`
    })
}

/** The name with the fewest changed letters, if those are at most a third of it. */
function nearest(name: string, candidates: readonly string[]): string | undefined {
  let best: { candidate: string; changes: number } | undefined
  for (const candidate of candidates) {
    const changes = changedLetters(name, candidate)
    if (changes <= name.length / 3 && (best === undefined || changes < best.changes)) best = { candidate, changes }
  }
  return best?.candidate
}

function changedLetters(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index)
  for (let i = 1; i <= from.length; i++) {
    const above = row
    row = [i]
    for (let j = 1; j <= to.length; j++) {
      const kept = (above[j - 1] ?? 0) + (from[i - 1] === to[j - 1] ? 0 : 1)
      row.push(Math.min(kept, (above[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1))
    }
  }
  return row[to.length] ?? 0
}
