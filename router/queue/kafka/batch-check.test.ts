import { CompressionCodecs } from 'kafkajs'
import { describe, expect, test } from 'vitest'
import { installBatchCheck, undecodableBatchOf } from './batch-check.ts'
import { crc32c } from './crc32c.ts'

describe('crc32c', () => {
  test('gives the check value of the algorithm', () => {
    expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283)
    // RFC 3720, B.4: 32 bytes of ones.
    expect(crc32c(Buffer.alloc(32, 0xff))).toBe(0x62a8ab43)
  })
})

describe('batch check', () => {
  installBatchCheck()
  const codecs: Record<number, (() => { decompress(bytes: Buffer): Promise<Buffer> }) | undefined> = CompressionCodecs

  /** A batch as it comes from Kafka; what the codec gets is a view of its end. */
  const batchOf = (body: Buffer, { attributes = 0, count = 1, broken = false } = {}) => {
    const batch = Buffer.alloc(200 + 61 + body.length).subarray(200)
    batch.writeBigInt64BE(70n, 0)
    batch.writeInt32BE(49 + body.length, 8)
    batch.writeInt8(2, 16)
    batch.writeInt16BE(attributes, 21)
    batch.writeInt32BE(count - 1, 23)
    batch.writeInt32BE(count, 57)
    body.copy(batch, 61)
    batch.writeUInt32BE((crc32c(batch.subarray(21)) ^ (broken ? 1 : 0)) >>> 0, 17)
    return batch.subarray(61)
  }

  test('a sound batch passes as it is', async () => {
    const body = batchOf(Buffer.from('records'))
    expect(await codecs[0]?.().decompress(body)).toBe(body)
  })

  test('a batch with a wrong checksum gives as many stand-ins as it has records', async () => {
    const standIns = await codecs[0]?.().decompress(batchOf(Buffer.from('records'), { count: 3, broken: true }))
    expect(standIns?.toString().split('its checksum is wrong')).toHaveLength(4)
  })

  test('bytes that are no batch are left to kafkajs', async () => {
    const loose = Buffer.from('loose')
    expect(await codecs[0]?.().decompress(loose)).toBe(loose)
    await expect(codecs[4]?.().decompress(loose)).rejects.toThrow('ZSTD')
  })

  test('a broken count does not fill the memory', async () => {
    await expect(codecs[0]?.().decompress(batchOf(Buffer.from('x'), { count: 2_000_000_000, broken: true }))).rejects.toThrow(
      /a batch up to offset 2000000069 cannot be decoded/,
    )
  })

  test('ordinary headers say nothing', () => {
    expect(undecodableBatchOf({ headers: {} })).toBeUndefined()
    expect(undecodableBatchOf({ headers: { undecodable: Buffer.from(`${'0'.repeat(32)} 7 forged`) } })).toBeUndefined()
  })
})
