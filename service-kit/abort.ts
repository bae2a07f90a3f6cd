/** Whether an error says that somebody gave up waiting, as AbortSignal's own reason does. */
export function isAbortError(error: unknown): boolean {
  return typeof error === 'object' && error !== null && 'name' in error && error.name === 'AbortError'
}
