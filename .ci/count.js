// Adds up what the test runners have reported: node count.js vitest.json pytest.xml failed(0|1). Exits 1 when anything failed or nothing ran.
import { existsSync, readFileSync } from 'node:fs'

const [vitestFile = '', pytestFile = '', failed = '1'] = process.argv.slice(2)
let passedCount = 0
let failedCount = 0

if (existsSync(vitestFile)) {
  const report = JSON.parse(readFileSync(vitestFile, 'utf8'))
  passedCount += report.numPassedTests
  failedCount += report.numFailedTests
}
if (existsSync(pytestFile)) {
  const suite = readFileSync(pytestFile, 'utf8').match(/<testsuite [^>]*>/)?.[0] ?? ''
  const count = (/** @type {string} */ name) => Number(suite.match(new RegExp(` ${name}="(\\d+)"`))?.[1] ?? 0)
  const bad = count('failures') + count('errors')
  failedCount += bad
  passedCount += count('tests') - bad - count('skipped')
}
// A step that failed without a failing test (lint, types, contracts, a runner that died) must not read as green.
if (failed !== '0' && failedCount === 0) failedCount = 1
console.log(`${passedCount} passed, ${failedCount} failed`)
process.exitCode = failedCount > 0 || passedCount === 0 ? 1 : 0
