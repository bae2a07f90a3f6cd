/** The command line asks for something that cannot be. Nothing was sent. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}
