// npm run certs: an authority for development, and certificates of it for each service, an edge, a publisher and an operator.
import { parseArgs } from 'node:util'
import { systemClock } from '../service-kit/clock.ts'
import { makeCertificates } from './development-certificates.ts'

const usage = `npm run certs -- [--folder certs] [--hosts localhost,127.0.0.1] [--edges edge] [--publishers demo-publisher] [--operators demo-operator]

Makes what is missing or about to expire, and leaves the rest alone. Names are lists with commas.
`

const { values } = parseArgs({
  options: {
    folder: { type: 'string', default: 'certs' },
    hosts: { type: 'string', default: 'localhost,127.0.0.1,::1' },
    edges: { type: 'string', default: 'edge' },
    publishers: { type: 'string', default: 'demo-publisher' },
    operators: { type: 'string', default: 'demo-operator' },
    help: { type: 'boolean', default: false },
  },
})
if (values.help) process.stdout.write(usage)
else {
  const { folder, hosts, edges, publishers, operators } = values
  const names = (list: string) => list.split(',').map((name) => name.trim())
  const { made, kept } = await makeCertificates({
    folder,
    hosts: names(hosts),
    edges: names(edges),
    publishers: names(publishers),
    operators: names(operators),
    nowMs: systemClock.now(),
  })
  const service = (prefix: string, file: string) =>
    [
      `${prefix}_TLS_CERT_FILE=${folder}/${file}.crt`,
      `${prefix}_TLS_KEY_FILE=${folder}/${file}.key`,
      `${prefix}_TLS_CA_FILE=${folder}/ca.crt`,
    ].join(' ')
  const edge = names(edges)[0] ?? 'edge'
  const operator = `operator-${names(operators)[0] ?? ''}`
  process.stdout.write(
    `made: ${made.join(' ') || 'nothing'}\nkept: ${kept.join(' ') || 'nothing'}\n
start the services with
  ${service('REGISTRY', 'registry')}
  ${service('ROUTER', 'router')} ROUTER_POLICY_FILE=${folder}/policy.yaml
  EDGE_NAME=${edge} ${service('EDGE', `edge-${edge}`)}
call them with
  npx push-cli edges list --ca ${folder}/ca.crt --cert ${folder}/${operator}.crt --key ${folder}/${operator}.key

For development: whoever has ${folder}/ca.key can be everybody.\n`,
  )
}
