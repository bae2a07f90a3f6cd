// What of the driver's own connection the registry touches; the driver has no types for it.
declare module 'cassandra-driver/lib/connection.js' {
  import type { EventEmitter } from 'node:events'

  interface FrameHeader {
    readonly streamId: number
  }

  class Connection extends EventEmitter {
    constructor(endpoint: string, protocolVersion: number | null, options: object)
    /** Requests by the stream that they were sent on, until they are answered. */
    readonly _operations: ReadonlyMap<number, unknown>
    /** The node has taken it. */
    readonly connected: boolean
    readonly _streamIds: { inUse: number }
    /** Takes a free stream; null when there is none. */
    _getStreamId(): number | null
    /** A frame has come to its end. */
    freeStreamId(header: FrameHeader): void
    openAsync(): Promise<void>
    closeAsync(): Promise<void>
    send(request: { write(encoder: unknown, streamId: number): Buffer }, options: null): Promise<{ keyspaceSet?: string }>
  }
  export = Connection
}
