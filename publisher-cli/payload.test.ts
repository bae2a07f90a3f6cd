import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { PAYLOAD_BYTES_MAX, readPayload } from './payload.ts'

async function* stream(...chunks: (string | Uint8Array)[]) {
  yield* chunks
}

const nothing = stream()

async function withFile<T>(content: string | Uint8Array, use: (path: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'push-cli-'))
  try {
    await writeFile(join(folder, 'data'), content)
    return await use(join(folder, 'data'))
  } finally {
    await rm(folder, { recursive: true })
  }
}

test.each([
  ['{"a":1}', 'application/json'],
  ['"text"', 'application/json'],
  ['17', 'application/json'],
  ['hello', 'text/plain'],
  ['', ''],
])('the type of %s is guessed as "%s"', async (data, contentType) => {
  expect(await readPayload(data, undefined, nothing)).toEqual({ bytes: Buffer.from(data), contentType })
})

test('a type that is given is taken as it is', async () => {
  expect((await readPayload('{}', 'application/x-thing', nothing)).contentType).toBe('application/x-thing')
})

test('no data is an empty payload', async () => {
  expect(await readPayload(undefined, undefined, nothing)).toEqual({ bytes: Buffer.alloc(0), contentType: '' })
})

test('a file is read byte for byte; what is no text is a stream of bytes', async () => {
  const bytes = Buffer.from([0xff, 0x00, 0x0a])
  const payload = await withFile(bytes, (path) => readPayload(`@${path}`, undefined, nothing))
  expect(payload).toEqual({ bytes, contentType: 'application/octet-stream' })
})

test('standard input is read to its end', async () => {
  expect(await readPayload('-', undefined, stream('{"a"', Buffer.from(':1}')))).toEqual({
    bytes: Buffer.from('{"a":1}'),
    contentType: 'application/json',
  })
})

test('64 KiB are taken, one byte more is not, wherever it comes from', async () => {
  const most = 'x'.repeat(PAYLOAD_BYTES_MAX)
  expect((await readPayload(most, undefined, nothing)).bytes).toHaveLength(PAYLOAD_BYTES_MAX)
  expect((await withFile(most, (path) => readPayload(`@${path}`, undefined, nothing))).bytes).toHaveLength(PAYLOAD_BYTES_MAX)
  const refused = `the data is larger than ${PAYLOAD_BYTES_MAX} bytes`
  await expect(readPayload(`${most}x`, undefined, nothing)).rejects.toThrow(refused)
  await expect(withFile(`${most}x`, (path) => readPayload(`@${path}`, undefined, nothing))).rejects.toThrow(refused)
  await expect(readPayload('-', undefined, endless())).rejects.toThrow(refused)
})

async function* endless() {
  for (;;) yield 'x'.repeat(1_000)
}

test('a file that cannot be read is named', async () => {
  await expect(readPayload('@/no/such/file', undefined, nothing)).rejects.toThrow('cannot read /no/such/file: ENOENT')
})
