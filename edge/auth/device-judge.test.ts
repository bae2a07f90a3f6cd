import { PassThrough } from 'node:stream'
import { describe, expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { metricValue } from '../../service-kit/testing/metric-value.ts'
import { createEdgeMetrics } from '../edge-metrics.ts'
import { judgeCertificate } from './client-certificate.ts'
import { createDeviceJudge } from './device-judge.ts'
import type { IdentityVerdict } from './identity.ts'

const nowMs = 1_800_000_000_000
const rules = { devicePrefix: 'URI:push:device:', accountPrefix: 'URI:push:account:' }
const shown = (subjectAltName: string | undefined, problem?: string, endsInMs = 60_000) => ({
  certificate: { subjectAltName, validToDate: new Date(nowMs + endsInMs) },
  problem,
})
const judge = (...of: Parameters<typeof shown>) => judgeCertificate(shown(...of), rules, nowMs)

describe('a client certificate', () => {
  test('names device and account in its subject alternative name, and counts until it ends', () => {
    expect(judge('DNS:tv.example, URI:push:device:tv-1, URI:push:account:anna')).toEqual({
      ok: true,
      deviceId: 'tv-1',
      accountId: 'anna',
      expiresAtMs: nowMs + 60_000,
      certificateEndsAtMs: nowMs + 60_000,
    })
    expect(judge('URI:push:device:tv:~1')).toMatchObject({ ok: true, deviceId: 'tv:~1', accountId: undefined })
  })

  test('names them in other entries when the operator says so', () => {
    const other = { devicePrefix: 'DNS:', accountPrefix: 'email:' }
    expect(judgeCertificate(shown('DNS:tv-1.devices.example, email:anna'), other, nowMs)).toMatchObject({
      ok: true,
      deviceId: 'tv-1.devices.example',
      accountId: 'anna',
    })
  })

  test.each([
    ['no name at all', undefined],
    ['no device', 'URI:push:account:anna'],
    ['a service', 'URI:push:role:edge, URI:push:edge:edge-1'],
    ['two devices', 'URI:push:device:a, URI:push:device:b'],
    ['a device that is no id', 'URI:push:device:a/b'],
    ['an empty device', 'URI:push:device:'],
    ['two accounts', 'URI:push:device:a, URI:push:account:x, URI:push:account:y'],
    ['an account that is no id', 'URI:push:device:a, URI:push:account:'],
    ['a device within another name', 'DNS:"x, URI:push:device:a"'],
    ['a device within an escaped name', 'URI:"http://x/\\", URI:push:device:a"'],
  ])('with %s is not believed', (_what, name) => {
    expect(judge(name)).toMatchObject({ ok: false, verdict: 'invalid' })
  })

  test('of another authority, or one that has expired, is not believed', () => {
    expect(judge('URI:push:device:a', 'UNABLE_TO_VERIFY_LEAF_SIGNATURE')).toMatchObject({ ok: false, verdict: 'invalid' })
    expect(judge('URI:push:device:a', 'CERT_HAS_EXPIRED')).toMatchObject({ ok: false, verdict: 'expired' })
    expect(judge('URI:push:device:a', undefined, 0)).toMatchObject({ ok: false, verdict: 'expired' })
  })
})

describe('certificate and credential', () => {
  const verdictOf = async (name: string | undefined, believed: IdentityVerdict | undefined) => {
    const metrics = createMetrics()
    const both = createDeviceJudge({
      identity: { authenticate: async () => believed ?? expect.unreachable() },
      certificates: rules,
      clock: { now: () => nowMs },
      metrics: createEdgeMetrics(metrics),
      shownOn: () => (name === undefined ? undefined : shown(name)),
    })
    const verdict = await both(new PassThrough(), believed && { text: 'token', from: 'header' })
    return { verdict, counted: await metricValue(metrics, 'push_edge_client_certificates_total', { verdict: 'believed' }) }
  }
  const token = (more: Partial<IdentityVerdict & { ok: true }> = {}): IdentityVerdict => ({
    ok: true,
    deviceId: 'a',
    accountId: 'anna',
    expiresAtMs: nowMs + 10_000,
    ...more,
  })

  test('neither: nobody', async () => {
    expect((await verdictOf(undefined, undefined)).verdict).toBeUndefined()
  })

  test('each alone is enough', async () => {
    expect((await verdictOf(undefined, token())).verdict).toEqual(token())
    expect(await verdictOf('URI:push:device:a', undefined)).toMatchObject({ verdict: { ok: true, deviceId: 'a' }, counted: 1 })
  })

  test('both: the account is of either, and the first to end ends the session', async () => {
    expect((await verdictOf('URI:push:device:a', token())).verdict).toEqual({
      ...token(),
      certificateEndsAtMs: nowMs + 60_000,
    })
    expect((await verdictOf('URI:push:device:a', token({ expiresAtMs: undefined }))).verdict).toMatchObject({
      expiresAtMs: nowMs + 60_000,
    })
    const named = 'URI:push:device:a, URI:push:account:anna'
    expect((await verdictOf(named, token())).verdict).toMatchObject({ ok: true, accountId: 'anna' })
  })

  test('both, of two devices or accounts, or a credential that does not hold: not believed', async () => {
    expect((await verdictOf('URI:push:device:b', token())).verdict).toMatchObject({ ok: false, verdict: 'invalid' })
    const bert = 'URI:push:device:a, URI:push:account:bert'
    expect((await verdictOf(bert, token())).verdict).toMatchObject({ ok: false, verdict: 'invalid' })
    expect((await verdictOf(bert, token({ accountId: undefined }))).verdict).toMatchObject({ ok: false, verdict: 'invalid' })
    const expired = { ok: false, verdict: 'expired', detail: 'x' } as const
    expect((await verdictOf('URI:push:device:a', expired)).verdict).toEqual(expired)
  })
})
