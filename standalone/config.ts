import { address, type ConfigOf, defineConfig, oneOf, path, readConfig, setting } from '../service-kit/config.ts'
import { isLoopback } from '../service-kit/listen-address.ts'
import { logLevels } from '../service-kit/log.ts'

/** What may be set of a plane in one process. */
export const standaloneConfig = defineConfig(
  'standalone',
  {
    dataFolder: setting('STANDALONE_DATA_FOLDER', path(), {
      default: 'data',
      doc: 'Where sessions and queued messages are kept. Made when missing.',
    }),
    routerAddress: setting('STANDALONE_ROUTER_ADDRESS', address(), { default: '127.0.0.1:7400', doc: 'Where publishers call.' }),
    registryAddress: setting('STANDALONE_REGISTRY_ADDRESS', address(), {
      default: '127.0.0.1:7401',
      doc: 'Where the registry listens.',
    }),
    edgeAddress: setting('STANDALONE_EDGE_ADDRESS', address(), {
      default: '127.0.0.1:7402',
      doc: 'Where the edge listens for routers.',
    }),
    deviceAddress: setting('STANDALONE_DEVICE_ADDRESS', address(), { default: '127.0.0.1:7480', doc: 'Where devices connect.' }),
    logLevel: setting('STANDALONE_LOG_LEVEL', oneOf(logLevels), { default: 'warn', doc: 'The least level that is logged.' }),
  },
  {
    check: (config) =>
      [
        ['STANDALONE_ROUTER_ADDRESS', config.routerAddress] as const,
        ['STANDALONE_REGISTRY_ADDRESS', config.registryAddress] as const,
        ['STANDALONE_EDGE_ADDRESS', config.edgeAddress] as const,
        ['STANDALONE_DEVICE_ADDRESS', config.deviceAddress] as const,
      ]
        .filter(([, value]) => !isLoopback(value))
        .map(
          ([name, value]) =>
            `${name} is "${value}"; expected a loopback address, as anybody who reaches it may send to any device`,
        ),
  },
)

/** What was set, checked whole. */
export type StandaloneConfig = ConfigOf<typeof standaloneConfig>

/** Reads the settings. Throws ConfigError with every problem at once. */
export function readStandaloneConfig(env: Readonly<Record<string, string | undefined>>): StandaloneConfig {
  return readConfig(standaloneConfig, env)
}
