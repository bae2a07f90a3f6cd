import { expect, test } from 'vitest'
import { canonicalAddress, parseAddressSet } from './address-set.ts'

test.each([
  ['10.0.0.0/8', ['10.1.2.3', '::ffff:10.1.2.3', '::FFFF:0a01:0203'], ['11.0.0.1', '::1', 'nonsense', '']],
  ['192.0.2.7', ['192.0.2.7'], ['192.0.2.8']],
  ['2001:db8::/32, ::1', ['2001:0DB8:0::5', '::1', '2001:db8::5%eth0'], ['2001:db9::1', '10.0.0.1']],
  ['0.0.0.0/0,::/0', ['1.2.3.4', 'ff::1'], ['x']],
  ['none', [], ['127.0.0.1', '::1']],
])('%s', (text, members, others) => {
  const set = parseAddressSet(text)
  for (const address of members) expect(set?.has(address), address).toBe(true)
  for (const address of others) expect(set?.has(address), address).toBe(false)
})

test.each(['', '10.0.0.0/33', '10.0.0.0/8;', '10.0.0', 'host.example', '::/129', '10.0.0.1/8/8', 'none,10.0.0.1'])(
  '"%s" is no such list',
  (text) => {
    expect(parseAddressSet(text)).toBeUndefined()
  },
)

test('an address has one spelling', () => {
  expect(canonicalAddress('::ffff:1.2.3.4')).toBe('1.2.3.4')
  expect(canonicalAddress('2001:DB8:0:0:0:0:0:1')).toBe('2001:db8::1')
  expect(canonicalAddress('fe80::1%eth0')).toBe('fe80::1')
  expect(canonicalAddress('1.2.3.4:80')).toBeUndefined()
})
