/** What one puts in another takes out, in order. For one reader. */
export class Channel<T> implements AsyncIterable<T> {
  readonly #waiting: T[] = []
  #over: { readonly error: unknown } | undefined
  #wake: (() => void) | undefined

  push(item: T): void {
    if (this.#over !== undefined) return
    this.#waiting.push(item)
    this.#wake?.()
  }

  /** Nothing more comes after what is in it. */
  end(): void {
    this.#over ??= { error: undefined }
    this.#wake?.()
  }

  /** Its reader is thrown this once it has read what is in it. */
  fail(error: unknown): void {
    this.#over ??= { error }
    this.#wake?.()
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (;;) {
      while (this.#waiting.length > 0) yield this.#waiting.shift() as T
      if (this.#over !== undefined) {
        if (this.#over.error !== undefined) throw this.#over.error
        return
      }
      await new Promise<void>((resolve) => (this.#wake = resolve))
      this.#wake = undefined
    }
  }
}
