import { X509Certificate } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { join } from 'node:path'
import {
  type CertificateAuthority,
  type CertificatePair,
  createAuthority,
  openAuthority,
} from '../service-kit/testing/certificates.ts'

/** For whom certificates are made. */
export interface CertificatesOrder {
  /** Made when missing. */
  readonly folder: string
  /** Where the services are reached. */
  readonly hosts: readonly string[]
  readonly edges: readonly string[]
  readonly publishers: readonly string[]
  readonly operators: readonly string[]
  readonly nowMs: number
}

/** Less is left than this, in ms: it is made anew. */
const renewBeforeMs = 7 * 24 * 3_600_000

/** Makes what is missing, about to expire, or of another authority; files are for their owner alone. Says which it made and which it kept. */
export async function makeCertificates(order: CertificatesOrder): Promise<{ made: string[]; kept: string[] }> {
  const { folder, hosts, nowMs } = order
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const made: string[] = []
  const kept: string[] = []
  const read = (name: string): CertificatePair | undefined =>
    existsSync(join(folder, `${name}.crt`)) && existsSync(join(folder, `${name}.key`))
      ? { certificate: readFileSync(join(folder, `${name}.crt`), 'utf8'), key: readFileSync(join(folder, `${name}.key`), 'utf8') }
      : undefined
  const write = (file: string, content: string) => {
    // Writing does not change the mode of a file that was there before.
    rmSync(join(folder, file), { force: true })
    writeFileSync(join(folder, file), content, { mode: 0o600, flag: 'wx' })
  }
  const writePair = (name: string, pair: CertificatePair) => {
    write(`${name}.key`, pair.key)
    write(`${name}.crt`, pair.certificate)
    made.push(name)
  }
  const lasts = ({ certificate }: CertificatePair) =>
    new X509Certificate(certificate).validToDate.getTime() > nowMs + renewBeforeMs

  const authority = await (async (): Promise<CertificateAuthority> => {
    const found = read('ca')
    if (found && lasts(found)) {
      kept.push('ca')
      return openAuthority(found, nowMs)
    }
    const authority = await createAuthority(nowMs)
    writePair('ca', authority)
    return authority
  })()
  const authorityKey = new X509Certificate(authority.certificate).publicKey
  const holder = async (name: string, uris: readonly string[]) => {
    const found = read(name)
    if (found && lasts(found) && holds(found, uris, hosts) && new X509Certificate(found.certificate).verify(authorityKey))
      kept.push(name)
    else writePair(name, await authority.issue({ commonName: name, uris, hosts }))
  }
  await holder('registry', ['push:role:registry'])
  await holder('router', ['push:role:router'])
  for (const name of order.edges) await holder(`edge-${name}`, ['push:role:edge', `push:edge:${name}`])
  for (const name of order.publishers) await holder(`publisher-${name}`, ['push:role:publisher', `push:principal:${name}`])
  for (const name of order.operators) {
    await holder(`operator-${name}`, ['push:role:operator', 'push:role:publisher', `push:principal:${name}`])
  }
  if (existsSync(join(folder, 'policy.yaml'))) kept.push('policy.yaml')
  else {
    write('policy.yaml', policyOf(order))
    made.push('policy.yaml')
  }
  return { made, kept }
}

/** Whether a certificate says all of this. */
function holds({ certificate }: CertificatePair, uris: readonly string[], hosts: readonly string[]): boolean {
  const leaf = new X509Certificate(certificate)
  const names = (leaf.subjectAltName ?? '').split(', ')
  return (
    uris.every((uri) => names.includes(`URI:${uri}`)) &&
    hosts.every((host) => (isIP(host) === 0 ? leaf.checkHost(host) : leaf.checkIP(host)) !== undefined)
  )
}

function policyOf({ publishers, operators }: CertificatesOrder): string {
  const everything = ['devices.read', 'devices.disconnect', 'edges.read', 'edges.drain']
  const letters = ['dead-letters.read', 'dead-letters.replay', 'dead-letters.purge', 'messages.read', 'messages.cancel']
  return [
    '# What each publisher and operator may do; see docs/security.md.',
    'principals:',
    ...publishers.map(
      (name) =>
        `  ${name}:\n    publish:\n      classes: [USER]\n      devices: ["*"]\n      accounts: ["*"]\n      priorities: [HIGH, NORMAL, LOW]`,
    ),
    ...operators.map(
      (name) =>
        `  ${name}:\n    publish:\n      classes: [USER, DIAGNOSTIC, RECOVERY]\n      devices: ["*"]\n      priorities: [HIGH, NORMAL, LOW]\n` +
        `    operations:\n${[...everything, ...letters].map((operation) => `      - ${operation}`).join('\n')}`,
    ),
    '',
  ].join('\n')
}
