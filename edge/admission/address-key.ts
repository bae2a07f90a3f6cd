import { canonicalAddress } from '../../service-kit/address-set.ts'

/** What counts as one address: an IPv4 address, also one that is mapped into IPv6, or the /64 network of an IPv6 address, which one customer may have whole. */
export function addressKey(address: string): string {
  const plain = canonicalAddress(address)
  if (plain === undefined || !plain.includes(':')) return plain ?? address
  const [before = '', behind] = plain.split('::', 2)
  const groups = before === '' ? [] : before.split(':')
  const last = behind === undefined || behind === '' ? [] : behind.split(':')
  const zeros = behind === undefined ? 0 : 8 - groups.length - last.length
  const all = [...groups, ...Array.from({ length: zeros }, () => '0'), ...last]
  return `${all.slice(0, 4).join(':')}::/64`
}
