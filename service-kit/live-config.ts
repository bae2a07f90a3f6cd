import { type ConfigDefinition, ConfigError, readConfig, shownSetting } from './config.ts'
import type { Log } from './log.ts'
import type { Metrics } from './metrics.ts'
import { withSettingsFile } from './settings-file.ts'

/** The settings of a running service. Those marked `reloadable` may change; all others stay as they were at the start. */
export interface LiveConfig<C extends object> {
  /** In force now; frozen. Read it where it is used, or ask to be told. */
  readonly current: Readonly<C>
  /** Runs after each reload that changed something, for as long as the process lives. */
  onChange(run: (config: Readonly<C>) => void): void
}

/** A live config that can be told to look again. */
export interface ReloadableConfig<C extends object> extends LiveConfig<C> {
  /** Reads environment and settings file again, and checks them whole. A problem is logged, and nothing changes. Never throws. */
  reload(): void
}

type Env = Readonly<Record<string, string | undefined>>

/** A config that stays as it is. */
export function fixedConfig<C extends object>(config: Readonly<C>): LiveConfig<C> {
  return { current: config, onChange: () => {} }
}

/**
 * Reads the environment, and over it the file that `<PREFIX>SETTINGS_FILE` names. Throws ConfigError with every problem of both. `readEnv` is asked
 * again at each reload.
 */
export function openLiveConfig<C extends object>(
  definition: ConfigDefinition<C>,
  readEnv: () => Env,
  options: { readonly log: Log; readonly metrics: Metrics },
): ReloadableConfig<C> {
  const { log, metrics } = options
  const reloads = metrics.counter(
    `push_${definition.service.replaceAll('-', '_')}_settings_reloads_total`,
    'Times that settings were read again, by what came of it',
    ['result'],
  )
  const listeners: ((config: Readonly<C>) => void)[] = []
  let current = readAll(definition, readEnv())

  const reload = () => {
    let wanted: Readonly<C>
    let next: Readonly<C>
    try {
      wanted = readAll(definition, readEnv())
      next = reloadablePart(definition, current, wanted)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      reloads.inc({ result: 'refused' })
      log.error('settings were not reloaded; those in force stay', { problems: error.problems })
      return
    }
    const changed = differences(definition, current, next)
    const atNextStart = Object.keys(differences(definition, next, wanted))
    if (atNextStart.length > 0) log.warn('some changed settings take effect at the next start only', { settings: atNextStart })
    reloads.inc({ result: Object.keys(changed).length > 0 ? 'changed' : 'unchanged' })
    log.info('settings reloaded', { changed })
    if (Object.keys(changed).length === 0) return
    current = next
    for (const run of listeners) run(current)
  }

  return {
    get current() {
      return current
    },
    onChange: (run) => void listeners.push(run),
    reload,
  }
}

function readAll<C extends object>(definition: ConfigDefinition<C>, given: Env): Readonly<C> {
  const { env, problems } = withSettingsFile(given, definition.prefix)
  try {
    const config = readConfig(definition, env)
    if (problems.length === 0) return config
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    throw new ConfigError(definition.service, [...problems, ...error.problems])
  }
  throw new ConfigError(definition.service, problems)
}

/** What is in force, with the reloadable settings of `wanted`. Throws ConfigError when the two do not go together. */
function reloadablePart<C extends object>(
  definition: ConfigDefinition<C>,
  inForce: Readonly<C>,
  wanted: Readonly<C>,
): Readonly<C> {
  const next: C = { ...inForce }
  for (const key of keysOf(definition)) if (definition.settings[key].reloadable) next[key] = wanted[key]
  const problems = definition.check(next)
  if (problems.length > 0) throw new ConfigError(definition.service, problems)
  return Object.freeze(next)
}

function differences<C extends object>(definition: ConfigDefinition<C>, from: Readonly<C>, to: Readonly<C>) {
  const changed: Record<string, { from: string; to: string }> = {}
  for (const key of keysOf(definition)) {
    const setting = definition.settings[key]
    if (setting.format(from[key]) === setting.format(to[key])) continue
    changed[setting.name] = { from: shownSetting(setting, from[key]), to: shownSetting(setting, to[key]) }
  }
  return changed
}

function keysOf<C extends object>(definition: ConfigDefinition<C>): (keyof C)[] {
  return Object.keys(definition.settings) as (keyof C)[]
}
