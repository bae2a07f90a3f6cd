import fc from 'fast-check'
import { Metadata, Status } from 'nice-grpc'
import { expect } from 'vitest'
import { callErrorOf } from '../errors.ts'
import type { GrpcConnection } from '../grpc-client.ts'
import { fuzzed, mutated, wireMessage } from './fuzz.ts'
import type { RecordingLog } from './recording-log.ts'

/** One method of a service, to be called with whatever bytes. */
export interface RawMethod {
  readonly path: string
  /** Sends these messages and waits for an answer: 'answered', or the status that the call ended with. */
  send(messages: readonly Uint8Array[]): Promise<string>
}

const bytesAsTheyAre = (bytes: Uint8Array) => bytes
/** How calls may end, whatever they hold; INTERNAL is for bytes that are no message, and told as a defect in the log where it is one. */
export const fairEnds = [
  'answered',
  'INTERNAL',
  'INVALID_ARGUMENT',
  'NOT_FOUND',
  'FAILED_PRECONDITION',
  'UNAVAILABLE',
  'UNIMPLEMENTED',
]

/** Far more than any call takes; one that reaches it hangs. */
const deadlineMs = 60_000

interface GeneratedService {
  readonly fullName: string
  readonly methods: Readonly<Record<string, { readonly name: string }>>
}

/** The methods of a service, called past their contracts, with these headers. A stream is left after its first answer. */
export function rawMethods(
  connection: GrpcConnection,
  { fullName, methods }: GeneratedService,
  headers: Readonly<Record<string, string>> = {},
): RawMethod[] {
  return Object.values(methods).map(({ name }) => {
    const path = `/${fullName}/${name}`
    const definition = {
      call: {
        path,
        requestStream: true,
        responseStream: true,
        requestSerialize: bytesAsTheyAre,
        requestDeserialize: bytesAsTheyAre,
        responseSerialize: bytesAsTheyAre,
        responseDeserialize: bytesAsTheyAre,
        options: {},
      },
    } as const
    const client = connection.client(definition)
    return {
      path,
      async send(messages) {
        async function* requests() {
          yield* messages
        }
        try {
          for await (const _ of client.call(requests(), { deadlineMs, metadata: Metadata(headers) })) return 'answered'
          return 'answered'
        } catch (error) {
          return Status[callErrorOf(error).status] ?? 'no status'
        }
      },
    }
  })
}

/** Sends every method of a service whatever bytes, made of these requests or of nothing: each call ends fairly, and the log tells of no defect. */
export async function expectFairEnds(
  connection: GrpcConnection,
  service: GeneratedService,
  requests: readonly Uint8Array[],
  log: RecordingLog,
): Promise<void> {
  for (const method of rawMethods(connection, service)) {
    await fc.assert(
      fc.asyncProperty(fc.oneof(mutated(...requests), wireMessage(), fc.uint8Array({ maxLength: 200 })), async (bytes) => {
        expect(fairEnds).toContain(await method.send([bytes]))
        expect(log.entries.filter(({ level }) => level === 'error')).toEqual([])
      }),
      fuzzed(30),
    )
  }
}
