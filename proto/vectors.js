// Gives the frames in push/v1/vectors/ their Protobuf form, with buf's own reading of the contract: no code of this project makes what it is
// tested by.
//
// It writes the field `protobuf` of vectors that have a `text`; those without one are written by hand, and left as they are.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const root = dirname(import.meta.dirname)
const buf = join(root, 'node_modules/.bin/buf')
const folder = mkdtempSync(join(tmpdir(), 'pushplane-vectors-'))
const image = join(folder, 'image.binpb')
/** What is wrong in JSON alone: in Protobuf nothing stands for it, or something right. */
const wrongInJsonOnly = new Set([
  'error without message',
  'message with a time that is a text',
  'message with a time that no number holds',
  'goaway with a slot that is a text',
  'welcome with a credential end that is a text',
  'close without code',
])

try {
  execFileSync(buf, ['build', '-o', image], { cwd: root, stdio: 'inherit' })
  for (const kind of ['client', 'server']) {
    const path = join(root, `proto/push/v1/vectors/${kind}-frames.json`)
    const message = kind === 'client' ? 'push.v1.ClientFrame' : 'push.v1.ServerFrame'
    const wanted = `${JSON.stringify(
      JSON.parse(readFileSync(path, 'utf8')).map((/** @type {Vector} */ vector) => withProtobuf(vector, message)),
      undefined,
      2,
    )}\n`
    writeFileSync(path, wanted)
  }
} finally {
  rmSync(folder, { recursive: true, force: true })
}
// Lists of ids in one line, as the formatter wants them.
execFileSync(join(root, 'node_modules/.bin/biome'), ['format', '--write', 'proto/push/v1/vectors'], { cwd: root })

/** @typedef {{ name: string, text?: string, protobuf?: string, frame: Record<string, unknown> | null, error?: string }} Vector */

/**
 * @param {Vector} vector
 * @param {string} message
 * @returns {Vector}
 */
function withProtobuf(vector, message) {
  const { name, text, frame, error } = vector
  if (text === undefined) return vector
  const onlyJson = error === 'UNKNOWN_TYPE' || wrongInJsonOnly.has(name)
  const object = onlyJson ? undefined : (frame ?? objectIn(text))
  const protobuf = object === undefined ? undefined : serialized(object, message)
  return { name, text, ...(protobuf !== undefined && { protobuf }), frame, ...(error && { error }) }
}

/**
 * What a text with something wrong in it means to say, where that can be said in Protobuf too.
 *
 * @param {string} text
 * @returns {Record<string, unknown> | undefined}
 */
function objectIn(text) {
  try {
    const value = JSON.parse(text)
    return typeof value?.type === 'string' ? value : undefined
  } catch {
    return undefined
  }
}

/**
 * @param {Record<string, unknown>} frame
 * @param {string} message
 * @returns {string | undefined} base64
 */
function serialized({ type, data, data_base64: base64, ...fields }, message) {
  if (typeof base64 === 'string' && Buffer.from(base64, 'base64').toString('base64') !== base64) return undefined
  const bytes = typeof base64 === 'string' ? base64 : Buffer.from(JSON.stringify(data ?? '')).toString('base64')
  const carries = type === 'message' || type === 'result'
  const payload = !carries ? { data } : base64 === undefined && (data === undefined || data === null) ? {} : { data_bytes: bytes }
  const json = join(folder, 'frame.json')
  const binary = join(folder, 'frame.binpb')
  writeFileSync(json, JSON.stringify({ [String(type)]: { ...fields, ...payload } }))
  const args = ['convert', image, '--type', message, '--from', `${json}#format=json`, '--to', `${binary}#format=binpb`]
  try {
    execFileSync(buf, args, { cwd: root, stdio: ['ignore', 'ignore', 'pipe'] })
  } catch {
    return undefined // a field of another type, or one that is not known: only JSON can say that
  }
  return readFileSync(binary).toString('base64')
}
