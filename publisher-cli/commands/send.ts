import { type Command, Option } from 'commander'
import { ConfirmLevel, MessageClass, MessageState, Priority } from '../../gen/push/v1/message.ts'
import { PublishMode, type PublishRequest, type PublishResponse, PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import { durationFromMs } from '../../service-kit/time.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { parseDurationMs, parseTimeoutMs } from '../durations.ts'
import { ExitCode } from '../exit-codes.ts'
import { deviceFields, outcomeFields, resultValue } from '../message-fields.ts'
import { isoTime, nameOf, printable } from '../output.ts'
import { readPayload } from '../payload.ts'
import { awaitEnd, type SendEnd, type Wait } from '../send-wait.ts'
import { UsageError } from '../usage-error.ts'

interface SendOptions {
  device?: string
  account?: string
  data?: string
  contentType?: string
  ttl?: number
  priority: keyof typeof priorities
  class: keyof typeof classes
  name?: string
  collapseKey?: string
  idempotencyKey?: string
  direct?: boolean
  wait: Wait
  waitOnline?: boolean
  timeout?: number
  dryRun?: boolean
  json?: boolean
  address?: string
}

const priorities = { high: Priority.HIGH, normal: Priority.NORMAL, low: Priority.LOW }
const classes = { user: MessageClass.USER, diagnostic: MessageClass.DIAGNOSTIC, recovery: MessageClass.RECOVERY }

const confirmByWait = {
  accepted: ConfirmLevel.ACKNOWLEDGED,
  written: ConfirmLevel.WRITTEN,
  acked: ConfirmLevel.ACKNOWLEDGED,
  result: ConfirmLevel.RESULT,
} as const satisfies Record<Wait, ConfirmLevel>

const timeoutDefaultMs = 30_000

const help = `
Examples:
  push-cli send --device my-tv --data '{"text":"hello"}'
      put it into the queue, wait until the device has acknowledged
  push-cli send --account family --data '{"text":"hello"}'
      to every device logged in to the account; one line a device, 7 when they did not all come to the same end
  push-cli send --device my-tv --data @command.json --ttl 10m --priority high --wait accepted
      put it into the queue, wait until it is safe there
  push-cli send --device my-tv --name collect_logs --class diagnostic --wait result --timeout 10m > logs.json
      wait for the device's result; its data goes to stdout
  echo reboot | push-cli send --device my-tv --data - --name reboot --class recovery --ttl 0 --direct --json

Results go to stdout, everything else to stderr. With --json each message gives one JSON object. A device that is offline ends the wait
with 4: the message is stored and delivered when the device comes. With --wait-online the wait goes on until then. When the wait is over
before the message is where it should be, the command ends with 6; push-cli status and push-cli watch go on with the message id.`

export function addSendCommand(program: Command, context: CliContext): void {
  program
    .command('send')
    .summary('send a message to a device, or to the devices of an account')
    .description(
      'Sends a message to a device, or to every device of an account, and ends with what became of it. Without --direct it goes through the durable queue; ' +
        'with --direct it goes straight to the device or devices.',
    )
    .option('--device <id>', 'the device')
    .option('--account <id>', 'every device logged in to this account, instead of one device')
    .option(
      '--data <data>',
      'the payload: text, @file, or - for standard input; at most 64 KiB. Text that begins with @ goes by -',
    )
    .option(
      '--content-type <type>',
      'media type (default: application/json when the data is JSON, text/plain for other text, else application/octet-stream)',
    )
    .option(
      '--ttl <time>',
      'how long the message may wait for the device: 10s, 5m, 1h; 0 is now or never (default: 1h)',
      parseDurationMs,
    )
    .addOption(new Option('--priority <priority>', 'what goes first').choices(Object.keys(priorities)).default('normal'))
    .addOption(
      new Option('--class <class>', 'which permission and which handler apply').choices(Object.keys(classes)).default('user'),
    )
    .option('--name <name>', 'name of the command or event, such as collect_logs')
    .option('--collapse-key <key>', 'replaces older undelivered messages with the same key')
    .option('--idempotency-key <key>', 'makes it safe to run the same command again: it is the same message')
    .option('--direct', 'go past the queue, straight to the device')
    .addOption(
      new Option(
        '--wait <level>',
        'how far to wait: until the queue has it (not with --direct), it is handed to the device, the device has acknowledged it, ' +
          'or has sent its result',
      )
        .choices(['accepted', 'written', 'acked', 'result'])
        .default('acked'),
    )
    .option('--wait-online', 'go on waiting while the device is offline')
    .option('--timeout <time>', 'longest wait (default: 30s)', parseTimeoutMs)
    .option('--dry-run', 'check and show the message, send nothing')
    .option('--json', 'one JSON object per message')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (options: SendOptions) => context.exit(await send(options, context)))
}

async function send(options: SendOptions, context: CliContext): Promise<ExitCode> {
  const { output, clock } = context
  const wait = waitOf(options)
  const timeoutMs = options.timeout ?? timeoutDefaultMs
  const request = await requestOf(options, wait, context)
  const target = options.device ?? `account ${options.account}`
  const print = (fields: object) => output.data(JSON.stringify({ ...targetFields(options), ...fields }))

  if (options.dryRun) {
    if (options.json) print({ dry_run: true, ...requestFields(request, wait) })
    else output.data(`would send to ${printable(target)}: ${JSON.stringify(requestFields(request, wait))}`)
    return ExitCode.DONE
  }

  let underWay = false
  let messageId = ''
  const exitCode = await withService(
    context,
    { address: options.address, timeoutMs },
    async (service) => {
      underWay = true
      const startedAt = clock.monotonic()
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const response = await service.client(PublishServiceDefinition).publish(request, call)
      messageId = response.messageId
      const elapsedMs = () => clock.monotonic() - startedAt
      const waiting = {
        wait,
        direct: options.direct === true,
        toAccount: options.account !== undefined,
        waitOnline: options.waitOnline === true,
        timeoutMs: timeoutMs - elapsedMs(),
      }
      const end = await awaitEnd(service, response, printable(target), waiting, elapsedMs, context)
      if (options.json) print(endFields(response, end, options.device, elapsedMs()))
      else tellEnd(end, wait, options.device !== undefined, context)
      return end.exitCode
    },
    ({ failure }) => {
      if (options.json) print({ error: { reason: failure.reason, message: failure.message, fields: failure.violations } })
    },
  )
  if (exitCode === ExitCode.INTERRUPTED && underWay) {
    if (messageId === '') output.talk('interrupted; a message that was under way may still arrive')
    else output.talk(`interrupted; the message was accepted, push-cli status ${messageId} tells what becomes of it`)
  }
  return exitCode
}

/** Where a result is waited for, stdout has its data and nothing else, so that it can be piped on. */
function tellEnd({ words, devices }: SendEnd, wait: Wait, one: boolean, { output }: CliContext): void {
  for (const line of words) {
    if (wait === 'result') output.talk(line)
    else output.data(line)
  }
  for (const { deviceId, result } of devices) {
    if (wait !== 'result' || result.length === 0) continue
    const text = printable(Buffer.from(result).toString())
    output.data(one ? text : `${printable(deviceId)} ${text}`)
  }
}

function waitOf(options: SendOptions): Wait {
  const { wait } = options
  if (options.direct && wait === 'accepted') {
    throw new UsageError('--direct does not go through the queue that accepts messages; wait for written, acked or result')
  }
  if (options.waitOnline && wait === 'accepted') {
    throw new UsageError(
      '--wait-online goes with --wait written, acked or result: a message is accepted whether the device is online or not',
    )
  }
  return wait
}

async function requestOf(options: SendOptions, wait: Wait, context: CliContext): Promise<PublishRequest> {
  if ((options.device === undefined) === (options.account === undefined)) {
    throw new UsageError('name the target with --device, or with --account; one of them')
  }
  const payload = await readPayload(options.data, options.contentType, context.stdin)
  return {
    mode: options.direct ? PublishMode.DIRECT : PublishMode.QUEUED,
    message: {
      idempotencyKey: options.idempotencyKey ?? '',
      target:
        options.device === undefined
          ? { $case: 'accountId', value: options.account ?? '' }
          : { $case: 'deviceId', value: options.device },
      messageClass: classes[options.class],
      name: options.name ?? '',
      payload: payload.bytes,
      contentType: payload.contentType,
      priority: priorities[options.priority],
      ttl: options.ttl === undefined ? undefined : durationFromMs(options.ttl),
      collapseKey: options.collapseKey ?? '',
      confirm: confirmByWait[wait],
      resultTimeout: undefined,
      receipts: 0,
      traceparent: '',
      signature: undefined,
    },
  }
}

function targetFields(options: SendOptions): object {
  return options.device === undefined ? { account_id: options.account } : { device_id: options.device }
}

function requestFields(request: PublishRequest, wait: Wait): object {
  const { message } = request
  return {
    mode: nameOf(PublishMode, request.mode),
    class: message && nameOf(MessageClass, message.messageClass),
    name: message?.name || undefined,
    priority: message && nameOf(Priority, message.priority),
    ttl_ms: message?.ttl && message.ttl.seconds * 1_000 + message.ttl.nanos / 1_000_000,
    content_type: message?.contentType || undefined,
    payload_bytes: message?.payload.length,
    collapse_key: message?.collapseKey || undefined,
    idempotency_key: message?.idempotencyKey || undefined,
    wait,
  }
}

function endFields(response: PublishResponse, end: SendEnd, device: string | undefined, elapsedMs: number): object {
  const [followed] = end.devices
  const single = device !== undefined || end.devices.every(({ deviceId }) => deviceId === '')
  const outcome = followed?.outcome ?? response.outcome
  return {
    message_id: response.messageId,
    ...(single ? { ...outcomeFields(outcome), state: nameOf(MessageState, outcome?.state ?? response.state) } : {}),
    elapsed_ms: Math.round(elapsedMs * 10) / 10,
    accept_time: isoTime(response.acceptTime),
    expire_time: isoTime(response.expireTime),
    ...(single ? {} : { devices: end.devices.map(deviceFields) }),
    result: single && followed && followed.result.length > 0 ? resultValue(followed.result) : undefined,
    gave_up: end.exitCode === ExitCode.GAVE_UP ? true : undefined,
    error: end.failure === undefined ? undefined : { message: end.failure },
  }
}
