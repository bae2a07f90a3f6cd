import kafkajs, { type KafkaMessage } from 'kafkajs'
import { systemRandom } from '../../../service-kit/random.ts'
import { crc32c } from './crc32c.ts'

// Node finds only some of kafkajs's names in its CommonJS; these are on the whole module.
const { CompressionCodecs, CompressionTypes } = kafkajs

/**
 * kafkajs never looks at the checksum of a record batch, and a batch that it cannot decode (snappy, lz4, zstd, broken bytes) fails the whole
 * fetch: all partitions of the lane stand still, the consumer gives up, and nothing tells which partition it was.
 *
 * So each batch is checked where kafkajs lets one in: in the codec, which it asks for uncompressed batches too. A batch that fails comes out as
 * stand-ins, one for each record, under the same offsets; everything around it is delivered as usual.
 */

/** Why a batch cannot be decoded, and where it ends. */
export interface UndecodableBatch {
  readonly problem: string
  /** The batch's last offset. */
  readonly lastOffset: bigint
}

interface Codec {
  compress(encoder: unknown): unknown
  decompress(bytes: Buffer): Promise<Buffer>
}

// Layout of a record batch (magic 2): Kafka protocol, "Record Batch".
const headerLength = 61
const lengthAt = 8
const magicAt = 16
const checksumAt = 17
const checkedFrom = 21
const lastOffsetDeltaAt = 23
const countAt = 57
/** The length field counts what follows it. */
const lengthFieldEnd = 12
const codecMask = 0x07

/** Far more than any producer puts in a batch; a broken count must not make us build millions of stand-ins. */
const standInCountMax = 100_000
const standInHeader = 'undecodable'
/** Of this process alone, so that no record from outside can pass for a stand-in. */
const standInSecret = Buffer.from(systemRandom.bytes(16)).toString('hex')

const codecNames: Record<number, string> = {
  [CompressionTypes.None]: 'none',
  [CompressionTypes.GZIP]: 'gzip',
  [CompressionTypes.Snappy]: 'snappy',
  [CompressionTypes.LZ4]: 'lz4',
  [CompressionTypes.ZSTD]: 'zstd',
}

let installed = false

/** Has every batch that kafkajs fetches in this process checked. Codecs that are registered later replace the check of theirs. */
export function installBatchCheck(): void {
  if (installed) return
  installed = true
  const codecs: Record<number, (() => Codec) | undefined> = CompressionCodecs
  for (const type of Object.keys(codecNames).map(Number)) codecs[type] = checkedCodec(type, codecs[type])
}

/** What stands in for a record of an undecodable batch; undefined for a real record. */
export function undecodableBatchOf(message: Pick<KafkaMessage, 'headers'>): UndecodableBatch | undefined {
  const header = message.headers?.[standInHeader]
  if (!Buffer.isBuffer(header)) return undefined
  const text = header.toString()
  if (!text.startsWith(standInSecret)) return undefined
  const [, lastOffset = '0', ...words] = text.split(' ')
  return { problem: words.join(' '), lastOffset: BigInt(lastOffset) }
}

function checkedCodec(type: number, inner: (() => Codec) | undefined): () => Codec {
  return () => ({
    compress: (encoder) => {
      if (!inner) throw new Error(`there is no ${codecNames[type]} codec to compress with`)
      return inner().compress(encoder)
    },
    decompress: async (bytes) => {
      const batch = batchAround(bytes, type)
      try {
        if (batch && crc32c(batch.subarray(checkedFrom)) !== batch.readUInt32BE(checksumAt))
          throw new Error('its checksum is wrong')
        if (inner) return await inner().decompress(bytes)
        return bytes
      } catch (error) {
        if (!batch) throw error
        return standIns(batch, error instanceof Error ? error.message : String(error))
      }
    },
  })
}

/**
 * The whole batch whose records are `bytes`. kafkajs gives the codec a view of the fetched bytes, so the header lies right before it; when it
 * does not look like one, undefined.
 */
function batchAround(bytes: Buffer, type: number): Buffer | undefined {
  if (bytes.byteOffset < headerLength) return undefined
  const batch = Buffer.from(bytes.buffer, bytes.byteOffset - headerLength, headerLength + bytes.length)
  const fits =
    batch.readInt8(magicAt) === 2 &&
    batch.readInt32BE(lengthAt) === batch.length - lengthFieldEnd &&
    (batch.readInt16BE(checkedFrom) & codecMask) === type
  return fits ? batch : undefined
}

function standIns(batch: Buffer, problem: string): Buffer {
  const count = batch.readInt32BE(countAt)
  const lastOffset = batch.readBigInt64BE(0) + BigInt(Math.max(batch.readInt32BE(lastOffsetDeltaAt), 0))
  if (count > standInCountMax) throw new Error(`a batch up to offset ${lastOffset} cannot be decoded: ${problem}`)
  const header = Buffer.from(`${standInSecret} ${lastOffset} ${problem}`)
  const records: Buffer[] = []
  for (let index = 0; index < count; index++) {
    const record = Buffer.concat([
      // Attributes, timestamp delta 0; then no key and no value; then one header.
      Buffer.from([0, 0]),
      varint(index),
      varint(-1),
      varint(-1),
      varint(1),
      varint(standInHeader.length),
      Buffer.from(standInHeader),
      varint(header.length),
      header,
    ])
    records.push(varint(record.length), record)
  }
  return Buffer.concat(records)
}

/** Zigzag varint, as in the record format. */
function varint(value: number): Buffer {
  let rest = value >= 0 ? value * 2 : -value * 2 - 1
  const bytes: number[] = []
  while (rest >= 0x80) {
    bytes.push((rest % 0x80) | 0x80)
    rest = Math.floor(rest / 0x80)
  }
  bytes.push(rest)
  return Buffer.from(bytes)
}
