import { type Command, InvalidArgumentError, Option } from 'commander'
import { connectDevice, type Device, type DeviceMessage } from '../../device-sdk/index.ts'
import { PUSH_ID_PATTERN } from '../../service-kit/ids.ts'
import type { CliContext } from '../context.ts'
import { ExitCode, exitCodeOfClose } from '../exit-codes.ts'
import { printable } from '../output.ts'
import { readToken } from '../service-transport.ts'
import { UsageError } from '../usage-error.ts'

interface ListenOptions {
  device: string
  account?: string
  url?: string
  token?: string
  tokenFile?: string
  transport: 'websocket' | 'sse'
  protocol: 'json' | 'protobuf'
  count?: number
  json?: boolean
}

const DEFAULT_URLS = { websocket: 'ws://127.0.0.1:7480/v1/connect', sse: 'http://127.0.0.1:7480/v1/events' }

const help = `
Examples:
  push-cli listen --device my-tv
  push-cli listen --device my-tv --json --count 1 | jq .data
  push-cli listen --device my-tv --transport sse

Each message is acknowledged when it has been printed. Messages go to stdout, everything else to stderr. Ctrl-C ends it.`

export function addListenCommand(program: Command, context: CliContext): void {
  program
    .command('listen')
    .summary('be a device and print what it receives')
    .description('Connects as a device, prints the messages it receives, and stays connected until Ctrl-C.')
    .requiredOption('--device <id>', 'who to be', parseId)
    .option('--account <id>', 'the account that the device is logged in to', parseId)
    .option('--url <url>', `address for devices (default: PUSH_DEVICE_URL, else ${DEFAULT_URLS.websocket})`)
    .option(
      '--token <token>',
      'credential, for whoever lists processes to read (default: PUSH_DEVICE_TOKEN, else dev:<device>[/<account>], which development set-ups take)',
    )
    .option('--token-file <file>', 'a file with the credential, read at each connect (default: PUSH_DEVICE_TOKEN_FILE)')
    .addOption(
      new Option('--transport <kind>', `what carries the frames; sse is at ${DEFAULT_URLS.sse} by default`)
        .choices(['websocket', 'sse'])
        .default('websocket'),
    )
    .addOption(new Option('--protocol <form>', 'form of the frames').choices(['json', 'protobuf']).default('json'))
    .option('--count <n>', 'end after n messages', parseCount)
    .option('--json', 'one JSON object per message')
    .addHelpText('after', help)
    .action(async (options: ListenOptions) => context.exit(await listen(options, context)))
}

function parseId(text: string): string {
  if (!PUSH_ID_PATTERN.test(text)) throw new InvalidArgumentError('Expected 1 to 128 characters of A-Z a-z 0-9 . _ : ~ -')
  return text
}

function parseCount(text: string): number {
  const count = Number(text)
  if (!/^\d{1,9}$/.test(text) || count < 1) throw new InvalidArgumentError('Expected a whole number of at least 1.')
  return count
}

async function listen(options: ListenOptions, context: CliContext): Promise<ExitCode> {
  const { output, env, interrupted } = context
  const { transport, protocol } = options
  const url = options.url ?? env.PUSH_DEVICE_URL ?? DEFAULT_URLS[transport]
  const token = credential(options, env)
  const over = Promise.withResolvers<ExitCode>()
  let printed = 0

  const device = connect()
  device.on('welcome', (event) => {
    output.talk(
      `connected as ${printable(event.deviceId)} (session ${printable(event.sessionId)}); waiting for messages, Ctrl-C ends`,
    )
  })
  device.on('goaway', ({ reason, reconnectAfterMs }) => {
    output.talk(`the edge asks to move in ${seconds(reconnectAfterMs)} (${printable(reason)})`)
  })
  device.on('disconnected', ({ code, reason, retryInMs }) => {
    output.talk(`not connected to ${url} (${code}${reason && ` ${printable(reason)}`}); next attempt in ${seconds(retryInMs)}`)
  })
  device.on('problem', ({ reason, message }) => output.talk(`${printable(reason)}: ${printable(message)}`))
  device.on('stopped', ({ code, reason }) => {
    output.talk(`the server refuses this device (${code} ${printable(reason)})`)
    over.resolve(exitCodeOfClose(code))
  })
  const interrupt = () => over.resolve(ExitCode.INTERRUPTED)
  interrupted.addEventListener('abort', interrupt, { once: true })
  if (interrupted.aborted) interrupt()
  try {
    return await over.promise
  } finally {
    interrupted.removeEventListener('abort', interrupt)
    await device.close({ graceMs: 100 })
  }

  function connect(): Device {
    try {
      return connectDevice({ url, token, transport, protocol, clock: context.clock, onMessage: print })
    } catch (error) {
      throw new UsageError(error instanceof Error ? error.message : String(error))
    }
  }

  function print(message: DeviceMessage): void | Promise<void> {
    // What comes after the last one that was asked for is left unanswered: it is for whoever connects next.
    if (options.count !== undefined && printed >= options.count) return new Promise(() => {})
    output.data(options.json ? JSON.stringify(fieldsOf(message)) : line(message))
    printed += 1
    if (printed === options.count) over.resolve(ExitCode.DONE)
  }
}

function credential(options: ListenOptions, env: CliContext['env']): string | (() => string) {
  if (options.token !== undefined && options.tokenFile !== undefined)
    throw new UsageError('give --token or --token-file, not both')
  const account = options.account === undefined ? '' : `/${options.account}`
  const token = options.token ?? (options.tokenFile === undefined ? env.PUSH_DEVICE_TOKEN : undefined)
  if (token !== undefined) return token
  const file = options.tokenFile ?? env.PUSH_DEVICE_TOKEN_FILE
  if (file === undefined) return `dev:${options.device}${account}`
  readToken(file)
  return () => readToken(file)
}

function line(message: DeviceMessage): string {
  const { data } = message
  const payload =
    data === undefined ? '' : data instanceof Uint8Array ? `<${data.length} bytes of ${message.contentType}>` : textOf(data)
  return printable([message.class, message.name ?? '', payload].filter((part) => part !== '').join(' '))
}

function textOf(data: unknown): string {
  return typeof data === 'string' ? data : JSON.stringify(data)
}

function fieldsOf(message: DeviceMessage): object {
  return {
    id: message.id,
    class: message.class,
    name: message.name,
    content_type: message.contentType,
    ...(message.data instanceof Uint8Array
      ? { data_base64: Buffer.from(message.data).toString('base64') }
      : { data: message.data }),
    priority: message.priority,
    accept_time: message.acceptTime,
    expire_time: message.expireTime,
    collapse_key: message.collapseKey,
    confirm: message.confirm,
    redelivered: message.redelivered,
    target: message.target,
    traceparent: message.traceparent,
  }
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`
}
