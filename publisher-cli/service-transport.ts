import { readFileSync } from 'node:fs'
import { isIP } from 'node:net'
import { checkServerIdentity, type PeerCertificate } from 'node:tls'
import type { Command } from 'commander'
import { ChannelCredentials } from 'nice-grpc'
import { type ClientTransport, isLoopbackList } from '../service-kit/client-transport.ts'
import { parseAddressList } from '../service-kit/listen-address.ts'
import { identityOfAltName } from '../service-kit/peer-identity.ts'
import { UsageError } from './usage-error.ts'

/** What a command line says of how to reach the service, and who is calling. */
export interface TransportOptions {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly tokenFile?: string
  readonly tls?: boolean
  readonly insecure?: boolean
}

/** How to call, and the token to call with. */
export interface ServiceAccess {
  readonly transport: ClientTransport
  readonly token: string | undefined
}

type Environment = Readonly<Record<string, string | undefined>>

/** Adds the options to each command that calls the service. */
export function addTransportOptions(program: Command): void {
  for (const command of program.commands) {
    addTransportOptions(command)
    if (!command.options.some(({ long }) => long === '--address')) continue
    command
      .option('--ca <file>', 'certificates (PEM) of the authorities that the service must be certified by (default: PUSH_CA)')
      .option('--cert <file>', 'your certificate (PEM), with --key (default: PUSH_CERT)')
      .option('--key <file>', 'the private key (PEM) of your certificate (default: PUSH_KEY)')
      .option('--token-file <file>', 'a file with your token, instead of a certificate (default: PUSH_TOKEN_FILE)')
      .option('--tls', "TLS with the authorities that this machine's Node believes, where there is no --ca")
      .option('--insecure', 'allow plain text to another machine')
  }
}

/** Puts options and environment together. Throws UsageError when they do not go together or a file cannot be used. */
export function serviceAccess(address: string, options: TransportOptions, env: Environment): ServiceAccess {
  const file = (option: string, path: string | undefined) => (path === undefined ? undefined : read(option, path))
  const ca = file('--ca', options.ca ?? env.PUSH_CA)
  const cert = file('--cert', options.cert ?? env.PUSH_CERT)
  const key = file('--key', options.key ?? env.PUSH_KEY)
  const tokenFile = options.tokenFile ?? env.PUSH_TOKEN_FILE
  const token = tokenFile === undefined ? undefined : readToken(tokenFile)
  if ((cert === undefined) !== (key === undefined)) throw new UsageError('--cert and --key go together')
  if (ca === undefined && !options.tls) {
    if (cert !== undefined) throw new UsageError('--cert needs --ca, or --tls, to know whom to show the certificate to')
    if (token !== undefined && !isLoopbackList(address))
      throw new UsageError(
        'a token is not sent in plain text to another machine, where anybody could take it; give --ca, or --tls',
      )
    return { transport: { kind: 'plain', anywhere: options.insecure ?? false }, token }
  }
  const hosts = parseAddressList(address)?.map(({ host }) => host) ?? []
  const [first = ''] = hosts
  const isRouter = ({ subjectaltname }: PeerCertificate) =>
    ca !== undefined && identityOfAltName(subjectaltname).roles.includes('router')
  try {
    const credentials = ChannelCredentials.createSsl(ca, key, cert, {
      // Routers are known by their role; whatever else stands there, a proxy for example, by its name.
      checkServerIdentity(_host, certificate) {
        if (isRouter(certificate)) return undefined
        const problems = hosts.map((host) => checkServerIdentity(host, certificate))
        return problems.includes(undefined) ? undefined : problems[0]
      },
    })
    return { transport: { kind: 'tls', credentials, serverName: isIP(first) === 0 ? first : 'router.push.internal' }, token }
  } catch (error) {
    throw new UsageError(`--ca, --cert and --key cannot be used: ${error instanceof Error ? error.message : String(error)}`)
  }
}

/** The token in the file that `--token-file` names. Throws UsageError when there is none. */
export function readToken(path: string): string {
  const token = read('--token-file', path).toString('utf8').trim()
  if (!/^[\x21-\x7e]+$/.test(token)) throw new UsageError(`the file of --token-file holds no token: ${path}`)
  return token
}

function read(option: string, path: string): Buffer {
  try {
    return readFileSync(path)
  } catch (error) {
    const why = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
    throw new UsageError(`${option}: ${path} cannot be read (${why})`)
  }
}
