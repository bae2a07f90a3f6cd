import { printable } from './output.ts'
import { UsageError } from './usage-error.ts'

/**
 * Refuses to go on unless `--confirm` has been given with the text that says what the command is about to act on. Throws UsageError, before
 * anything has been sent. `does` completes "this …".
 */
export function requireConfirmation(given: string | undefined, wanted: string, does: string): void {
  if (given === wanted) return
  const found = given === undefined ? '' : `, not --confirm "${printable(given)}"`
  throw new UsageError(`this ${does}; say that you mean it with --confirm "${printable(wanted)}"${found}`)
}
