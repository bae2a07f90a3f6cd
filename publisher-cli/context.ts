import type { Clock } from '../service-kit/clock.ts'
import type { ExitCode } from './exit-codes.ts'
import type { Output } from './output.ts'
import type { TransportOptions } from './service-transport.ts'

/** What a command has of the world. */
export interface CliContext {
  readonly env: Readonly<Record<string, string | undefined>>
  readonly output: Output
  readonly stdin: AsyncIterable<Uint8Array | string>
  readonly clock: Clock
  /** Aborts at Ctrl-C. */
  readonly interrupted: AbortSignal
  /** How the command that runs was told to reach the service. */
  readonly transport: TransportOptions
  /** Says what the process ends with. */
  exit(code: ExitCode): void
}
