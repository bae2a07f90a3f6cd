import { PushError } from '../../service-kit/errors.ts'

/** Bytes of one page of dead letters, at most, where it has more than one. */
export const deadLetterPageBytesMax = 16 * 1024 * 1024
/** Bytes of dead letters that are read by their positions at once. */
export const deadLetterReadBytesMax = 64 * 1024 * 1024

/** What a caller is told who asks for more than `deadLetterReadBytesMax`. */
export function tooManyDeadLetters(): PushError {
  const description = `name fewer at once: together they have more than ${deadLetterReadBytesMax} bytes`
  return new PushError(
    'INVALID_REQUEST',
    `dead letters: ${description}`,
    {},
    { violations: [{ field: 'positions', description }] },
  )
}
