import type { Clock, Timer } from '../../service-kit/clock.ts'
import { isPushId } from '../../service-kit/ids.ts'
import type { Log } from '../../service-kit/log.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import type { Identity, IdentityVerdict } from './identity.ts'

const detailLengthMax = 200
/** How often trouble is told; each case is counted. */
const tellEveryMs = 60_000

/** Holds an identity to its promise: a verdict of the right form and in time, or `unavailable`. Counts the verdicts. */
export function boundedIdentity(
  identity: Identity,
  options: {
    readonly timeoutMs: number
    readonly clock: Clock
    readonly log: Log
    readonly metrics: Pick<EdgeMetrics, 'identityVerdicts'>
  },
): Identity {
  const { timeoutMs, clock, log, metrics } = options
  let toldAt = Number.NEGATIVE_INFINITY

  const trouble = (detail: string, cause?: unknown): IdentityVerdict => {
    if (clock.monotonic() - toldAt >= tellEveryMs) {
      toldAt = clock.monotonic()
      log.warn('credentials of devices cannot be judged', { problem: detail, ...(cause !== undefined && { cause }) })
    }
    return { ok: false, verdict: 'unavailable', detail: 'credentials cannot be judged now' }
  }

  return {
    async authenticate(credential) {
      let timer: Timer | undefined
      const late = new Promise<'late'>((resolve) => {
        timer = clock.after(timeoutMs, () => resolve('late'))
      })
      let verdict: IdentityVerdict
      let result: string
      try {
        const given: IdentityVerdict | 'late' = await Promise.race([identity.authenticate(credential), late])
        verdict = given === 'late' ? trouble(`no verdict within ${timeoutMs} ms`) : checked(given, trouble)
        result = given === 'late' ? 'late' : verdict.ok ? 'believed' : verdict.verdict
      } catch (cause) {
        verdict = trouble('an identity failed that never may', cause)
        result = 'failed'
      } finally {
        timer?.cancel()
      }
      metrics.identityVerdicts.inc({ verdict: result })
      return verdict
    },
  }
}

/** What comes from a module of the operator's own is believed when it is a verdict at all. */
function checked(given: IdentityVerdict, trouble: (detail: string) => IdentityVerdict): IdentityVerdict {
  if (given.ok === true) {
    const { deviceId, accountId, expiresAtMs } = given
    if (typeof deviceId !== 'string' || !isPushId(deviceId)) return trouble('a verdict names no device id')
    if (accountId !== undefined && (typeof accountId !== 'string' || !isPushId(accountId)))
      return trouble('a verdict names an account that is no account id')
    if (expiresAtMs !== undefined && (typeof expiresAtMs !== 'number' || Number.isNaN(expiresAtMs)))
      return trouble('a verdict has an end that is no time')
    return { ok: true, deviceId, accountId, expiresAtMs }
  }
  const { verdict, detail } = given
  if (verdict === 'unavailable') return trouble(String(detail))
  if (verdict !== 'invalid' && verdict !== 'expired') return trouble('a verdict is none of those there are')
  // It goes out as a line of HTTP and as a frame.
  return {
    ok: false,
    verdict,
    detail: String(detail)
      .replaceAll(/[^ -~]/g, ' ')
      .slice(0, detailLengthMax),
  }
}
