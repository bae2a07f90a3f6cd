import { edgeConfig } from '../edge/index.ts'
import { registryConfig } from '../registry/index.ts'
import { routerConfig } from '../router/index.ts'
import { settingsTable } from '../service-kit/config.ts'
import { standaloneConfig } from './config.ts'

/** `docs/settings.md`: every setting of every service, from the definitions that check them. */
export function settingsDoc(): string {
  return `# Settings

Environment variables. Each service reads its own once, at its start, and tells every wrong or unknown one in one go. This page is written by \`npm run docs\`.

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
