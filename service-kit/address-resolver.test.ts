import { experimental } from '@grpc/grpc-js'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { channelTarget } from './address-resolver.ts'

const names = vi.hoisted(() => new Map<string, string[]>())

vi.mock('node:dns/promises', () => ({
  lookup: async (host: string) => {
    const addresses = names.get(host)
    if (addresses === undefined) throw new Error(`ENOTFOUND ${host}`)
    return addresses.map((address) => ({ address, family: 4 }))
  },
}))

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] })
})

afterEach(() => {
  vi.useRealTimers()
})

function resolving(addresses: string) {
  const target = channelTarget(addresses)
  const [scheme = '', path = ''] = target.split(':///')
  const results: string[] = []
  const resolver = experimental.createResolver(
    { scheme, authority: '', path },
    (list) => {
      results.push(list.ok ? list.value.map((endpoint) => JSON.stringify(endpoint.addresses)).join() : list.error.details)
      return true
    },
    {},
  )
  return { resolver, results }
}

const endpoint = (host: string, port: number) => JSON.stringify([{ host, port }])

test('every address of every name is used; numbers are taken as they are', async () => {
  names.set('a', ['10.0.0.1', '10.0.0.2'])
  const { resolver, results } = resolving('a:1, [::1]:2')
  resolver.updateResolution()
  await vi.advanceTimersByTimeAsync(0)
  expect(results).toEqual([[endpoint('10.0.0.1', 1), endpoint('10.0.0.2', 1), endpoint('::1', 2)].join()])
})

test('names are looked up again when asked, at most every five seconds', async () => {
  names.set('a', ['10.0.0.1'])
  const { resolver, results } = resolving('a:1')
  resolver.updateResolution()
  await vi.advanceTimersByTimeAsync(0)
  names.set('a', ['10.0.0.9'])
  for (let asked = 0; asked < 10; asked++) resolver.updateResolution()
  await vi.advanceTimersByTimeAsync(4_999)
  expect(results).toEqual([endpoint('10.0.0.1', 1)])
  await vi.advanceTimersByTimeAsync(1)
  expect(results).toEqual([endpoint('10.0.0.1', 1), endpoint('10.0.0.9', 1)])
  await vi.advanceTimersByTimeAsync(60_000)
  expect(results).toHaveLength(2)
})

test('a name that cannot be looked up for a while keeps its addresses', async () => {
  names.set('a', ['10.0.0.1'])
  const { resolver, results } = resolving('a:1')
  resolver.updateResolution()
  await vi.advanceTimersByTimeAsync(0)
  names.delete('a')
  resolver.updateResolution()
  await vi.advanceTimersByTimeAsync(5_000)
  expect(results).toEqual([endpoint('10.0.0.1', 1), endpoint('10.0.0.1', 1)])
})

test('when nothing can be found the names are told', async () => {
  const { resolver, results } = resolving('nowhere:1,nobody:2')
  resolver.updateResolution()
  await vi.advanceTimersByTimeAsync(0)
  expect(results).toEqual(['no address found for nowhere, nobody'])
})

test('a destroyed resolver looks nothing up and leaves no timer', async () => {
  names.set('a', ['10.0.0.1'])
  const { resolver, results } = resolving('a:1')
  resolver.updateResolution()
  resolver.destroy()
  expect(vi.getTimerCount()).toBe(0)
  await vi.advanceTimersByTimeAsync(10_000)
  expect(results).toEqual([])
})
