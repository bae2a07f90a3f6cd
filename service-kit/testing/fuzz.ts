import process from 'node:process'
import fc from 'fast-check'

/**
 * How a property is tried: always the same cases, so that a change is told by them and not by chance. `PUSHPLANE_FUZZ_SEED` tries others, and
 * `PUSHPLANE_FUZZ_FACTOR` that many times as many. A failure tells its seed and the smallest case that fails.
 */
export function fuzzed(numRuns: number): { seed: number; numRuns: number } {
  const { PUSHPLANE_FUZZ_SEED: seed = '20261', PUSHPLANE_FUZZ_FACTOR: factor = '1' } = process.env
  return { seed: Number(seed), numRuns: Math.ceil(numRuns * Number(factor)) }
}

/** What a test that tries cases may take, in ms, when there are more of them than usual. */
export const fuzzTimeoutMs = 120_000 * Math.max(1, Number(process.env.PUSHPLANE_FUZZ_FACTOR ?? 1))

/** One of these with some bytes changed, left out, put in or said again; sometimes as it is. */
export function mutated(...originals: readonly Uint8Array[]): fc.Arbitrary<Buffer> {
  const change = fc.tuple(fc.constantFrom('set', 'cut', 'insert', 'repeat'), fc.nat(), fc.nat(255), fc.nat(40))
  return fc.tuple(fc.constantFrom(...originals), fc.array(change, { maxLength: 6 })).map(([original, changes]) => {
    let bytes = Buffer.from(original)
    for (const [how, where, value, length] of changes) {
      const at = where % (bytes.length + 1)
      const [before, after] = [bytes.subarray(0, at), bytes.subarray(at)]
      if (how === 'set') bytes = Buffer.concat([before, Buffer.from([value]), after.subarray(1)])
      else if (how === 'cut') bytes = Buffer.concat([before, after.subarray(length)])
      else if (how === 'insert') bytes = Buffer.concat([before, Buffer.alloc(length, value), after])
      else bytes = Buffer.concat([before, after.subarray(0, length), after])
    }
    return bytes
  })
}

/** Bytes that are Protobuf, of no contract in particular: fields of low numbers, of every kind, within one another. */
export function wireMessage(): fc.Arbitrary<Buffer> {
  const { message } = fc.letrec<{ message: Buffer; field: Buffer }>((tie) => ({
    message: fc.array(tie('field'), { maxLength: 8 }).map((fields) => Buffer.concat(fields)),
    field: fc
      .tuple(
        fc.integer({ min: 1, max: 24 }),
        fc.oneof(
          { depthSize: 'small', withCrossShrink: true },
          fc.oneof(fc.maxSafeNat(), fc.nat(8)).map((value) => ({ kind: 0, body: varint(value) })),
          fc.uint8Array({ minLength: 8, maxLength: 8 }).map((bytes) => ({ kind: 1, body: Buffer.from(bytes) })),
          fc
            .oneof(fc.string(), fc.constantFrom('d1', 'edge-a-12345678', 'x'.repeat(200)))
            .map((text) => delimited(Buffer.from(text))),
          fc.uint8Array({ maxLength: 64 }).map((bytes) => delimited(Buffer.from(bytes))),
          tie('message').map(delimited),
          fc.uint8Array({ minLength: 4, maxLength: 4 }).map((bytes) => ({ kind: 5, body: Buffer.from(bytes) })),
        ),
      )
      .map(([number, { kind, body }]) => Buffer.concat([varint(number * 8 + kind), body])),
  }))
  return message
}

function delimited(bytes: Buffer): { kind: number; body: Buffer } {
  return { kind: 2, body: Buffer.concat([varint(bytes.length), bytes]) }
}

function varint(value: number): Buffer {
  const bytes: number[] = []
  let rest = value
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) | 0x80)
  return Buffer.from([...bytes, rest])
}
