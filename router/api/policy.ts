import type { Clock } from '../../service-kit/clock.ts'
import type { Log } from '../../service-kit/log.ts'
import type { Metrics } from '../../service-kit/metrics.ts'
import type { Reloads } from '../../service-kit/reloads.ts'
import { type WatchedFiles, watchFiles } from '../../service-kit/watched-files.ts'
import { type Policy, parsePolicy } from './policy-file.ts'

/** Opens the policy file and keeps the policy up to date; one that does not hold changes nothing. Throws StartError when it does not hold at the start. */
export function openPolicy(
  path: string,
  parts: {
    readonly clock: Clock
    readonly log: Log
    readonly metrics: Metrics
    readonly reloads?: Reloads | undefined
    readonly periodMs?: number
  },
): WatchedFiles<Policy> {
  return watchFiles({
    ...parts,
    name: 'policy',
    files: [{ setting: 'ROUTER_POLICY_FILE', path }],
    parse: ([content]) => parsePolicy(String(content), `ROUTER_POLICY_FILE names ${path}`),
  })
}
