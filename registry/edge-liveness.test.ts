import { describe, expect, test } from 'vitest'
import { EdgeLiveness, unknownEdgesMax } from './edge-liveness.ts'
import type { EdgeRecord, StoredLease } from './edge-store.ts'

const leasePeriodMs = 30_000
const readPeriodMs = 2_000

const edge = (edgeId: string): EdgeRecord => ({
  edgeId,
  name: edgeId,
  address: `${edgeId}:7402`,
  zone: '',
  connectionCount: 0,
  connectionLimit: 100,
  draining: false,
})
const leases = (ids: readonly string[]): StoredLease[] => ids.map((id) => ({ edge: edge(id), remainingMs: 20_000 }))
const names = (count: number, from = 0) => Array.from({ length: count }, (_, n) => `e${String(from + n).padStart(2, '0')}`)

/** Drives the machine as the registry does: one read every two seconds. */
class Reads {
  readonly liveness = new EdgeLiveness({ leasePeriodMs, readGapMaxMs: 10_000 })
  at = 1_000_000

  /** Reads that show these edges, for a while. */
  show(ids: readonly string[], forMs: number): void {
    for (const end = this.at + forMs; this.at < end; ) {
      this.at += readPeriodMs
      this.liveness.readSucceeded(this.at, this.at - 5, leases(ids))
    }
  }

  fail(forMs: number): void {
    for (const end = this.at + forMs; this.at < end; ) {
      this.at += readPeriodMs
      this.liveness.readFailed()
    }
  }

  states(ids: readonly string[]): string[] {
    return [...new Set(ids.map((id) => this.liveness.stateOf(id, this.at)))]
  }
}

describe('one edge', () => {
  test('is live while it renews, and lapsed once its lease has run out', () => {
    const reads = new Reads()
    reads.show(['e00', 'e01'], 60_000)
    expect(reads.states(['e00', 'e01'])).toEqual(['live'])
    reads.show(['e00'], 18_000)
    expect(reads.states(['e01'])).toEqual(['live'])
    reads.show(['e00'], 4_000)
    expect(reads.states(['e01'])).toEqual(['lapsed'])
    expect(reads.states(['e00'])).toEqual(['live'])
  })

  test('that renews after it lapsed is told so, also by the renewal that follows a lost answer, and then no more', () => {
    const reads = new Reads()
    reads.show(['e00'], 60_000)
    reads.show([], 30_000)
    expect(reads.liveness.renewed(reads.at, edge('e00'), 30_000)).toEqual({ lapsed: true })
    expect(reads.states(['e00'])).toEqual(['live'])
    expect(reads.liveness.renewed(reads.at + 2_000, edge('e00'), 30_000)).toEqual({ lapsed: true })
    expect(reads.liveness.renewed(reads.at + 10_000, edge('e00'), 30_000)).toEqual({ lapsed: false })
  })

  test('that came back through another registry is told here too', () => {
    const reads = new Reads()
    reads.show(['e00'], 60_000)
    reads.show([], 30_000)
    reads.show(['e00'], 20_000)
    expect(reads.liveness.renewed(reads.at, edge('e00'), 30_000)).toEqual({ lapsed: true })
  })

  test('that never lapsed is not told anything', () => {
    const reads = new Reads()
    expect(reads.liveness.renewed(reads.at, edge('e00'), 30_000)).toEqual({ lapsed: false })
    reads.show(['e00'], 60_000)
    expect(reads.liveness.renewed(reads.at, edge('e00'), 30_000)).toEqual({ lapsed: false })
  })

  test('renewed here stays live while a read that began earlier does not show it', () => {
    const reads = new Reads()
    reads.show(['e00'], 60_000)
    reads.liveness.renewed(reads.at, edge('e09'), 30_000)
    reads.show(['e00'], 28_000)
    expect(reads.states(['e09'])).toEqual(['live'])
    reads.show(['e00'], 4_000)
    expect(reads.states(['e09'])).toEqual(['lapsed'])
  })
})

describe('a store that stalls', () => {
  test('keeps the last picture while reads fail', () => {
    const reads = new Reads()
    reads.show(names(3), 60_000)
    reads.fail(300_000)
    expect(reads.states(names(3))).toEqual(['live'])
  })

  test('lapses nothing within one lease period after reads work again, though every lease reads as run out', () => {
    const reads = new Reads()
    reads.show(names(3), 60_000)
    reads.fail(60_000)
    reads.show([], 30_000)
    expect(reads.states(names(3))).toEqual(['live'])
    // Two renewed meanwhile, the third is really gone.
    reads.show(names(2), 4_000)
    expect(reads.states(names(2))).toEqual(['live'])
    expect(reads.states(['e02'])).toEqual(['lapsed'])
  })

  test('that hangs instead of failing counts as failing', () => {
    const reads = new Reads()
    reads.show(names(3), 60_000)
    reads.at += 40_000
    reads.show([], 28_000)
    expect(reads.states(names(3))).toEqual(['live'])
  })

  test('begins the wait anew when reads fail again', () => {
    const reads = new Reads()
    reads.show(names(3), 60_000)
    reads.fail(60_000)
    reads.show([], 28_000)
    reads.fail(2_000)
    reads.show([], 30_000)
    expect(reads.states(names(3))).toEqual(['live'])
    reads.show([], 4_000)
    expect(reads.states(names(3))).toEqual(['lapsed'])
  })
})

describe('many edges at once', () => {
  test('over a fifth of five or more within one lease period are suspect', () => {
    const reads = new Reads()
    reads.show(names(10), 60_000)
    reads.show(names(7), 24_000)
    expect(reads.states(names(3, 7))).toEqual(['suspect'])
    expect(reads.states(names(7))).toEqual(['live'])
  })

  test('the first ones of a wave turn suspect with the rest', () => {
    const reads = new Reads()
    reads.show(names(10), 60_000)
    reads.show(names(8), 24_000)
    expect(reads.states(names(2, 8))).toEqual(['lapsed'])
    reads.show(names(6), 24_000)
    expect(reads.states(names(4, 6))).toEqual(['suspect'])
  })

  test('suspect ends with a renewal', () => {
    const reads = new Reads()
    reads.show(names(10), 60_000)
    reads.show(names(5), 24_000)
    reads.show(names(6), 4_000)
    expect(reads.states(['e05'])).toEqual(['live'])
    expect(reads.states(names(4, 6))).toEqual(['suspect'])
    expect(reads.liveness.renewed(reads.at, edge('e06'), 30_000)).toEqual({ lapsed: false })
    expect(reads.states(['e06'])).toEqual(['live'])
  })

  test('suspect turns lapsed after two lease periods of successful reads, and not before', () => {
    const reads = new Reads()
    reads.show(names(10), 60_000)
    reads.show(names(5), 20_000)
    expect(reads.states(names(5, 5))).toEqual(['suspect'])
    reads.show(names(5), 58_000)
    expect(reads.states(names(5, 5))).toEqual(['suspect'])
    reads.show(names(5), 2_000)
    expect(reads.states(names(5, 5))).toEqual(['lapsed'])
  })

  test('reads that fail meanwhile prolong it', () => {
    const reads = new Reads()
    reads.show(names(10), 60_000)
    reads.show(names(5), 50_000)
    reads.fail(2_000)
    reads.show(names(5), 60_000)
    expect(reads.states(names(5, 5))).toEqual(['suspect'])
    reads.show(names(5), 4_000)
    expect(reads.states(names(5, 5))).toEqual(['lapsed'])
  })

  test('a fifth and no more, or fewer than five edges, just lapse', () => {
    const ten = new Reads()
    ten.show(names(10), 60_000)
    ten.show(names(8), 24_000)
    expect(ten.states(names(2, 8))).toEqual(['lapsed'])
    const four = new Reads()
    four.show(names(4), 60_000)
    four.show(names(1), 24_000)
    expect(four.states(names(3, 1))).toEqual(['lapsed'])
  })

  test('after a stall those that do not come back are suspect, not lapsed', () => {
    const reads = new Reads()
    reads.show(names(10), 60_000)
    reads.fail(60_000)
    // Reads come at no multiple of the lease period.
    reads.at += 700
    reads.show([], 36_000)
    expect(reads.states(names(10))).toEqual(['suspect'])
    reads.show(names(10), 2_000)
    expect(reads.states(names(10))).toEqual(['live'])
  })
})

describe('an edge that is not known', () => {
  test('is suspect until reads have succeeded for one lease period, then lapsed', () => {
    const reads = new Reads()
    expect(reads.states(['e09'])).toEqual(['suspect'])
    reads.show(['e00'], 30_000)
    expect(reads.states(['e09'])).toEqual(['suspect'])
    reads.show(['e00'], 4_000)
    expect(reads.states(['e09'])).toEqual(['lapsed'])
  })

  test('is suspect until a read that began after it was first asked for', () => {
    const reads = new Reads()
    reads.show(['e00'], 60_000)
    expect(reads.states(['e09'])).toEqual(['suspect'])
    reads.liveness.readSucceeded(reads.at + 10, reads.at - 10, leases(['e00']))
    expect(reads.states(['e09'])).toEqual(['suspect'])
    reads.show(['e00'], 2_000)
    expect(reads.states(['e09'])).toEqual(['lapsed'])
  })

  test('is suspect while reads fail, and for one lease period after', () => {
    const reads = new Reads()
    reads.show(['e00'], 60_000)
    reads.states(['e09'])
    reads.fail(10_000)
    expect(reads.states(['e09'])).toEqual(['suspect'])
    reads.show(['e00'], 30_000)
    expect(reads.states(['e09'])).toEqual(['suspect'])
  })

  test('is forgotten when too many others are asked for, and is suspect when asked again', () => {
    const reads = new Reads()
    reads.states(['e09'])
    reads.show(['e00'], 60_000)
    expect(reads.states(['e09'])).toEqual(['lapsed'])
    for (let n = 0; n < unknownEdgesMax; n += 1) reads.liveness.stateOf(`other-${n}`, reads.at)
    expect(reads.states(['e09'])).toEqual(['suspect'])
  })
})

describe('the picture', () => {
  test('shows edges by id, and one that lapsed for ten lease periods more', () => {
    const reads = new Reads()
    reads.show(['e02', 'e00', 'e01'], 60_000)
    expect(reads.liveness.picture().map(({ edge }) => edge.edgeId)).toEqual(['e00', 'e01', 'e02'])
    reads.show(['e00', 'e02'], 24_000)
    expect(reads.liveness.picture().map(({ state }) => state)).toEqual(['live', 'lapsed', 'live'])
    reads.show(['e00', 'e02'], 300_000)
    expect(reads.liveness.picture().map(({ edge }) => edge.edgeId)).toEqual(['e00', 'e02'])
  })

  test('grows its version with every change but those of counts and lease ends', () => {
    const reads = new Reads()
    reads.show(['e00', 'e01'], 60_000)
    const still = reads.liveness.version
    reads.show(['e00', 'e01'], 60_000)
    reads.liveness.renewed(reads.at, { ...edge('e00'), connectionCount: 5 }, 30_000)
    expect(reads.liveness.version).toBe(still)
    const seen = [still]
    const changed = () => {
      const isNew = reads.liveness.version > (seen.at(-1) ?? 0)
      seen.push(reads.liveness.version)
      return isNew
    }
    reads.liveness.renewed(reads.at, { ...edge('e00'), draining: true }, 30_000)
    expect(changed()).toBe(true)
    reads.liveness.renewed(reads.at, edge('e02'), 30_000)
    expect(changed()).toBe(true)
    reads.show(['e01', 'e02'], 40_000)
    expect(changed()).toBe(true)
    expect(changed()).toBe(false)
    reads.show(['e01', 'e02'], 290_000)
    expect(changed()).toBe(false)
    reads.show(['e01', 'e02'], 30_000)
    expect(changed()).toBe(true)
    reads.liveness.renewed(reads.at, edge('e00'), 30_000)
    expect(changed()).toBe(true)
  })

  test('forgets an edge that lapsed after two hours', () => {
    const reads = new Reads()
    reads.show(['e00', 'e01'], 60_000)
    reads.show(['e00'], 24_000)
    expect(reads.liveness.count('lapsed')).toBe(1)
    reads.show(['e00'], 7_200_000)
    expect(reads.liveness.count('lapsed')).toBe(0)
  })
})
