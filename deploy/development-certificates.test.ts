import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { systemClock } from '../service-kit/clock.ts'
import { silentLog } from '../service-kit/log.ts'
import { createMetrics } from '../service-kit/metrics.ts'
import { openTls } from '../service-kit/tls.ts'
import { makeCertificates } from './development-certificates.ts'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'certs-'))
  return () => rmSync(folder, { recursive: true })
})

const names = ['ca', 'registry', 'router', 'edge-a', 'publisher-billing', 'operator-anna']
const make = (more: object = {}) =>
  makeCertificates({
    folder,
    hosts: ['localhost', '127.0.0.1', '::1'],
    edges: ['a'],
    publishers: ['billing'],
    operators: ['anna'],
    nowMs: Date.now(),
    ...more,
  })
const identityOf = (name: string) => {
  const file = (ending: string) => ({ setting: 'X', path: join(folder, ending) })
  const tls = openTls({
    files: { certificate: file(`${name}.crt`), key: file(`${name}.key`), authorities: file('ca.crt') },
    clock: systemClock,
    log: silentLog,
    metrics: createMetrics(),
  })
  tls.close()
  return tls.identity
}

test('each gets a certificate that says what it is, in files for their owner alone', async () => {
  expect(await make()).toEqual({ made: [...names, 'policy.yaml'], kept: [] })
  expect(identityOf('edge-a')).toEqual({ roles: ['edge'], edgeNames: ['a'], principal: undefined })
  expect(identityOf('publisher-billing')).toEqual({ roles: ['publisher'], edgeNames: [], principal: 'billing' })
  expect(identityOf('operator-anna')).toMatchObject({ roles: ['publisher', 'operator'], principal: 'anna' })
  for (const file of readdirSync(folder)) expect([file, statSync(join(folder, file)).mode & 0o777]).toEqual([file, 0o600])
})

test('a second run changes nothing; a new name is added, what is about to expire or lacks a host is made anew', async () => {
  await make()
  const before = readFileSync(join(folder, 'router.crt'), 'utf8')
  expect(await make()).toEqual({ made: [], kept: [...names, 'policy.yaml'] })
  expect(await make({ edges: ['a', 'b'] })).toMatchObject({ made: ['edge-b'] })
  expect(await make({ hosts: ['router.example'] })).toMatchObject({ made: names.slice(1) })
  expect(readFileSync(join(folder, 'router.crt'), 'utf8')).not.toBe(before)
  expect(await make({ nowMs: Date.now() + 85 * 86_400_000, hosts: ['router.example'] })).toMatchObject({ made: names.slice(1) })
})
