/**
 * What the SDK needs of a WebSocket: the part that browsers, Node's own `WebSocket` and the package `ws` have in common. Binary messages may
 * come as an ArrayBuffer or as a view of one.
 */
export interface Socket {
  /**
   * Set where answers go beside the connection: only a call of `onSent` proves that everything sent has arrived, and a ping has no way. They show the
   * credential that `show` was last called with.
   */
  readonly apart?: { onSent: () => void; show(token: string): void }
  /** How binary messages come; set to `arraybuffer` before the first can. */
  binaryType?: string
  send(data: string | Uint8Array<ArrayBuffer>): void
  close(code?: number, reason?: string): void
  addEventListener(type: 'message', listener: (event: { data: unknown }) => void): void
  addEventListener(type: 'close', listener: (event: { code: number; reason: string }) => void): void
  addEventListener(type: 'error', listener: (event: unknown) => void): void
}

/** Opens a socket; it may still be connecting when this returns. Throws when the address cannot be one. */
export type OpenSocket = (url: string, protocols: string[]) => Socket

/** Opens the WebSocket that the browser or Node brings. */
export const openGlobalSocket: OpenSocket = (url, protocols) => new globalThis.WebSocket(url, protocols)
