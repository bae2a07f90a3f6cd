import fc from 'fast-check'
import { expect, test } from 'vitest'
import { edgeConfig, readEdgeConfig } from '../edge/index.ts'
import { readRegistryConfig, registryConfig } from '../registry/index.ts'
import { readRouterConfig, routerConfig } from '../router/index.ts'
import { ConfigError } from '../service-kit/config.ts'
import { fuzzed, fuzzTimeoutMs } from '../service-kit/testing/fuzz.ts'
import { readStandaloneConfig, standaloneConfig } from './config.ts'

const services = [
  ['registry', registryConfig, readRegistryConfig],
  ['router', routerConfig, readRouterConfig],
  ['edge', edgeConfig, readEdgeConfig],
  ['standalone', standaloneConfig, readStandaloneConfig],
] as const

/** What people type, what looks like it, and what nobody would. */
const typed = fc.oneof(
  fc.constantFrom(
    '',
    ' ',
    '0',
    '-1',
    '1',
    '1e9',
    '00012',
    '9007199254740993',
    'true',
    'TRUE',
    'yes',
    'NaN',
    'Infinity',
    '0x10',
    '10s',
  ),
  fc.constantFrom(
    '127.0.0.1:0',
    '0.0.0.0:7400',
    '[::1]:1',
    'localhost:65536',
    'dns:///a:1',
    'a:1,b:2',
    ',',
    'sqlite',
    'cassandra',
    'dev',
  ),
  fc.nat().map(String),
  fc.string({ maxLength: 80 }),
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc.constantFrom('x', ',', 'a:1,').map((word) => word.repeat(2_000)),
)

test.for(services)(
  'whatever is typed for a %s, its settings hold or every problem is told by its name',
  { timeout: fuzzTimeoutMs },
  ([, definition, read]) => {
    const names = Object.values(definition.settings).map(({ name }) => name)
    const strange = fc.string({ maxLength: 20 }).map((word) => `${definition.prefix}${word}`)
    const env = fc.dictionary(
      fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...names) }, { weight: 1, arbitrary: strange }),
      typed,
      { maxKeys: 8 },
    )
    fc.assert(
      fc.property(env, (given) => {
        try {
          const config = read(given)
          expect(Object.isFrozen(config)).toBe(true)
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError)
          if (!(error instanceof ConfigError)) return
          expect(error.problems.length).toBeGreaterThan(0)
          for (const problem of error.problems) expect(problem).toContain(definition.prefix)
          // What was typed is told again, but not without end.
          expect(error.message.length).toBeLessThan(4_000)
        }
      }),
      fuzzed(300),
    )
  },
)
