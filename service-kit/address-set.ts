import { BlockList, isIP, isIPv4, isIPv6, SocketAddress } from 'node:net'

/** IP addresses and networks, as an operator lists them. */
export interface AddressSet {
  /** As it was typed. */
  readonly text: string
  /** Whether the address, in any spelling, is one of them. False for what is no address. */
  has(address: string): boolean
}

/** Reads a comma list of addresses and networks (`10.0.0.0/8, 2001:db8::1`), or `none`. Undefined when it is not of that form. */
export function parseAddressSet(text: string): AddressSet | undefined {
  const list = new BlockList()
  let empty = true
  for (const part of text.trim() === 'none' ? [] : text.split(',')) {
    const [, address = '', prefix] = /^([0-9A-Fa-f:.]+)(?:\/(\d{1,3}))?$/.exec(part.trim()) ?? []
    const version = isIP(address)
    const bits = version === 4 ? 32 : 128
    const length = prefix === undefined ? bits : Number(prefix)
    if (version === 0 || length > bits) return undefined
    list.addSubnet(address, length, version === 4 ? 'ipv4' : 'ipv6')
    empty = false
  }
  return {
    text,
    has(address) {
      if (empty) return false
      const plain = canonicalAddress(address)
      return plain !== undefined && list.check(plain, isIPv4(plain) ? 'ipv4' : 'ipv6')
    },
  }
}

/** An address in its one usual spelling: without zone, an IPv4 address that is mapped into IPv6 as IPv4. Undefined when it is none. */
export function canonicalAddress(address: string): string | undefined {
  if (isIPv4(address)) return address
  const bare = address.split('%', 1)[0] ?? ''
  if (!isIPv6(bare)) return undefined
  const plain = new SocketAddress({ address: bare, family: 'ipv6' }).address
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(plain)?.[1]
  return mapped ?? plain
}
