import { type Command, InvalidArgumentError, Option } from 'commander'
import { ConfirmLevel, MessageClass, MessageState, Priority, StateReason } from '../../gen/push/v1/message.ts'
import { PublishMode, type PublishRequest, type PublishResponse, PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import { durationFromMs } from '../../service-kit/time.ts'
import { addressOption, withService } from '../connection.ts'
import type { CliContext } from '../context.ts'
import { parseDurationMs } from '../durations.ts'
import { ExitCode } from '../exit-codes.ts'
import { tellOutcome } from '../outcomes.ts'
import { isoTime, nameOf, printable } from '../output.ts'
import { readPayload } from '../payload.ts'
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
  wait?: Wait
  timeout?: number
  dryRun?: boolean
  json?: boolean
  address?: string
}

type Wait = 'accepted' | 'written' | 'acked'

const priorities = { high: Priority.HIGH, normal: Priority.NORMAL, low: Priority.LOW }
const classes = { user: MessageClass.USER, diagnostic: MessageClass.DIAGNOSTIC, recovery: MessageClass.RECOVERY }

const timeoutDefaultMs = 30_000
const timeoutMaxMs = 24 * 3_600_000

const help = `
Examples:
  push-cli send --device my-tv --data '{"text":"hello"}' --direct
      deliver now, wait until the device has acknowledged
  push-cli send --device my-tv --data @command.json --ttl 10m --priority high
      put it into the queue, wait until it is safe there
  echo reboot | push-cli send --device my-tv --data - --name reboot --class recovery --ttl 0 --direct --json

Results go to stdout, everything else to stderr. With --json each message gives one JSON object.`

export function addSendCommand(program: Command, context: CliContext): void {
  program
    .command('send')
    .summary('send a message to a device')
    .description(
      'Sends a message to a device. Without --direct it goes through the durable queue and the command ends when it is safe there; ' +
        'with --direct it goes straight to the device and the command ends with what became of it.',
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
        'how far to wait; written and acked need --direct in this version (default: acked with --direct, else accepted)',
      ).choices(['accepted', 'written', 'acked']),
    )
    .option('--timeout <time>', 'longest wait (default: 30s)', parseTimeoutMs)
    .option('--dry-run', 'check and show the message, send nothing')
    .option('--json', 'one JSON object per message')
    .option(addressOption.flags, addressOption.help)
    .addHelpText('after', help)
    .action(async (options: SendOptions) => context.exit(await send(options, context)))
}

function parseTimeoutMs(text: string): number {
  const ms = parseDurationMs(text)
  if (ms < 1 || ms > timeoutMaxMs) throw new InvalidArgumentError('Expected more than 0 and at most 24h.')
  return ms
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
  const exitCode = await withService(
    context,
    { address: options.address, timeoutMs },
    async (service) => {
      underWay = true
      const startedAt = clock.monotonic()
      const call = { deadlineMs: timeoutMs, signal: context.interrupted }
      const response = await service.client(PublishServiceDefinition).publish(request, call)
      const elapsedMs = clock.monotonic() - startedAt
      const told = tellOutcome(response, printable(target), elapsedMs)
      if (options.json) print(responseFields(response, elapsedMs))
      else output.data(told.words)
      return told.exitCode
    },
    ({ failure }) => {
      if (options.json) print({ error: { reason: failure.reason, message: failure.message, fields: failure.violations } })
    },
  )
  if (exitCode === ExitCode.INTERRUPTED && underWay) output.talk('interrupted; a message that was under way may still arrive')
  return exitCode
}

function waitOf(options: SendOptions): Wait {
  const wait = options.wait ?? (options.direct ? 'acked' : 'accepted')
  if (!options.direct && wait !== 'accepted') {
    throw new UsageError(`--wait ${wait} needs --direct in this version; a queued message can be waited for until it is accepted`)
  }
  if (options.direct && wait === 'accepted') {
    throw new UsageError('--direct does not go through the queue that accepts messages; wait for written or acked')
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
      confirm: wait === 'written' ? ConfirmLevel.WRITTEN : ConfirmLevel.ACKNOWLEDGED,
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

function responseFields(response: PublishResponse, elapsedMs: number): object {
  const { outcome } = response
  return {
    message_id: response.messageId,
    state: nameOf(MessageState, response.state),
    reason: outcome && outcome.reason !== StateReason.UNSPECIFIED ? nameOf(StateReason, outcome.reason) : undefined,
    detail: outcome?.detail || undefined,
    elapsed_ms: Math.round(elapsedMs * 10) / 10,
    accept_time: isoTime(response.acceptTime),
    expire_time: isoTime(response.expireTime),
    edge_id: outcome?.edgeId || undefined,
    session_id: outcome?.sessionId || undefined,
    hops: outcome?.hops && {
      accepted: isoTime(outcome.hops.accepted),
      looked_up: isoTime(outcome.hops.lookedUp),
      sent_to_edge: isoTime(outcome.hops.sentToEdge),
      written: isoTime(outcome.hops.written),
      answered: isoTime(outcome.hops.answered),
    },
  }
}
