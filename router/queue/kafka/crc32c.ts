const table = new Int32Array(256)
for (let index = 0; index < 256; index++) {
  let value = index
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0x82f63b78 : value >>> 1
  table[index] = value
}

/** The Castagnoli checksum (RFC 3720, appendix B.4) that Kafka puts on record batches. Unsigned. */
export function crc32c(bytes: Uint8Array): number {
  let crc = -1
  for (let index = 0; index < bytes.length; index++) {
    crc = (table[(crc ^ (bytes[index] ?? 0)) & 0xff] ?? 0) ^ (crc >>> 8)
  }
  return (crc ^ -1) >>> 0
}
