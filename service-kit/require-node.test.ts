import { expect, test } from 'vitest'
import { nodeSuffices } from './require-node.js'

test.each([
  ['24.0.0', true],
  ['22.18.0', true],
  ['22.17.9', false],
  ['20.20.2', false],
  ['9.99.0', false],
])('Node %s suffices for 22.18: %s', (version, expected) => {
  expect(nodeSuffices(version, 22, 18)).toBe(expected)
})
