import { edgeConfig } from '../edge/index.ts'
import { registryConfig } from '../registry/index.ts'
import { routerConfig } from '../router/index.ts'
import { settingsTable } from '../service-kit/config.ts'
import { standaloneConfig } from './config.ts'

/** `docs/settings.md`: every setting of every service, from the definitions that check them. */
export function settingsDoc(): string {
  return `# Settings

Environment variables, or lines of the file that \`…_SETTINGS_FILE\` names. Each service reads its own at its start, and tells every wrong or unknown one in one go. Those marked
_Reloadable_ may change while the service runs: it reads the file again on SIGHUP. This page is written by \`npm run docs\`.

## registry

${settingsTable(registryConfig)}

## router

${settingsTable(routerConfig)}

## edge

${settingsTable(edgeConfig)}

## standalone

${settingsTable(standaloneConfig)}
`
}
