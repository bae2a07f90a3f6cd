/** A start that failed for a reason the operator can mend: told as it is, without a stack. */
export class StartError extends Error {
  override readonly name: string = 'StartError'
  /** What the process exits with: 2 when a setting is wrong, else 1. */
  readonly exitCode: number = 1
}
