import { type Client, type CompatServiceDefinition, Status } from 'nice-grpc'
import { HealthDefinition } from 'nice-grpc-server-health'
import { PlainTextError } from '../service-kit/client-transport.ts'
import { type CallFailure, callErrorOf } from '../service-kit/errors.ts'
import { type CallBounds, connectGrpc, type GrpcConnection } from '../service-kit/grpc-client.ts'
import { silentLog } from '../service-kit/log.ts'
import type { CliContext } from './context.ts'
import { ExitCode, exitCodeOfFailure } from './exit-codes.ts'
import { printable } from './output.ts'
import { serviceAccess } from './service-transport.ts'
import { UsageError } from './usage-error.ts'

/** Where routers listen by default. */
export const DEFAULT_ADDRESS = '127.0.0.1:7400'

/** For `--help`: the option that all commands to the service have. */
export const addressOption = {
  flags: '--address <host:port>',
  help: `address of the service, or several with commas (default: PUSH_ADDRESS, else ${DEFAULT_ADDRESS})`,
}

// An address where nothing answers at all, not even with a refusal.
const reachTimeoutMs = 5_000

/** The service, reached. */
export interface Service {
  readonly address: string
  client<Definition extends CompatServiceDefinition>(definition: Definition): Client<Definition, CallBounds>
}

/** A call that failed, told in a sentence, with what the process ends with. */
export interface ToldFailure {
  readonly exitCode: ExitCode
  readonly failure: CallFailure
}

/**
 * Reaches the service, runs `work` with it and lets go of it. A failed call is told on stderr, answered with its exit code, and handed to
 * `onFailure` before. The service is reached by a health check first: so a service that is not there is told apart from a call that may
 * have done its work, and the time of a call is the time of that call.
 */
export async function withService(
  context: CliContext,
  options: { address: string | undefined; timeoutMs: number },
  work: (service: Service) => Promise<ExitCode>,
  onFailure: (told: ToldFailure) => void = () => {},
): Promise<ExitCode> {
  const address = options.address ?? context.env.PUSH_ADDRESS ?? DEFAULT_ADDRESS
  const connection = dial(address, context)
  try {
    await reach(connection, address, options.timeoutMs, context)
    return await work({ address, client: connection.client })
  } catch (error) {
    if (error instanceof UsageError) throw error
    if (context.interrupted.aborted) return ExitCode.INTERRUPTED
    const failure = error instanceof NotReachedError ? error.failure : callErrorOf(error)
    const exitCode = error instanceof NotReachedError ? ExitCode.UNAVAILABLE : exitCodeOfFailure(failure)
    onFailure({ exitCode, failure })
    for (const line of sentences(failure, exitCode, address)) context.output.talk(line)
    return exitCode
  } finally {
    connection.close()
  }
}

class NotReachedError extends Error {
  readonly failure: CallFailure
  constructor(failure: CallFailure) {
    super(failure.message)
    this.failure = failure
  }
}

function dial(address: string, context: CliContext): GrpcConnection {
  const access = serviceAccess(address, context.transport, context.env)
  try {
    return connectGrpc({ addresses: address, ...access, log: silentLog, clock: context.clock })
  } catch (error) {
    if (error instanceof PlainTextError)
      throw new UsageError(
        `calls to ${address} would be plain text; give --ca (with --cert and --key or --token-file), --tls, or --insecure`,
      )
    throw new UsageError(`the address ${error instanceof Error ? error.message : String(error)}`)
  }
}

async function reach(connection: GrpcConnection, address: string, timeoutMs: number, context: CliContext): Promise<void> {
  try {
    const deadlineMs = Math.min(timeoutMs, reachTimeoutMs)
    await connection.client(HealthDefinition).check({ service: '' }, { deadlineMs, signal: context.interrupted })
  } catch (error) {
    if (context.interrupted.aborted) throw error
    const failure = callErrorOf(error)
    if (failure.status === Status.DEADLINE_EXCEEDED) {
      throw new NotReachedError({ ...failure, status: Status.UNAVAILABLE, message: `nothing answers at ${address}` })
    }
    // Whatever else it says, it is there.
    if (failure.status === Status.UNAVAILABLE) throw new NotReachedError(failure)
  }
}

/** Of the transport's nested report only what it found at last, such as `connect ECONNREFUSED 127.0.0.1:7400`. */
function transportWords(message: string): string {
  const found = /.*Last error: (?:Error: )?(.+?)\.? *Resolution note:/s.exec(message)
  return found?.[1] ?? message
}

function sentences(failure: CallFailure, exitCode: ExitCode, address: string): string[] {
  const words = printable(transportWords(failure.message))
  const fields = failure.violations.map(({ field, description }) => `  ${printable(field)}: ${printable(description)}`)
  const again = failure.retryAfterMs === undefined ? [] : [`  come back in ${(failure.retryAfterMs / 1_000).toFixed(1)} s`]
  if (exitCode === ExitCode.UNAVAILABLE) return [`the service at ${address} is unavailable: ${words}`, ...fields, ...again]
  if (exitCode === ExitCode.GAVE_UP) return [`gave up waiting for ${address}: ${words}`]
  return [`${failure.reason ?? Status[failure.status]}: ${words}`, ...fields, ...again]
}
