// Adds up what the test runners have reported: node count.js vitest.json[,more.json] pytest.xml failed(0|1) again.json[,more.json]. Exits 1 when anything
// failed or nothing ran.
// A test that failed and was green when its file ran once more, alone, counts as passed, and is told.
import { existsSync, readFileSync } from 'node:fs'
import { relative } from 'node:path'

const [vitestFiles = '', pytestFile = '', failed = '1', againFiles = ''] = process.argv.slice(2)
/** Of each failure, told again at the end: where a long output is cut, its end is what is left. */
const shownMaxChars = 1_500
let passedCount = 0
let failedCount = 0

/** What was green at the second try: file and test. */
const again = new Set()
for (const file of againFiles.split(',').filter(existsSync)) {
  for (const { name, assertionResults } of JSON.parse(readFileSync(file, 'utf8')).testResults) {
    for (const { fullName, status } of assertionResults) if (status === 'passed') again.add(`${name}: ${fullName}`)
  }
}
for (const file of vitestFiles.split(',').filter(existsSync)) {
  const report = JSON.parse(readFileSync(file, 'utf8'))
  passedCount += report.numPassedTests
  failedCount += report.numFailedTests
  for (const { name, status, message, assertionResults } of report.testResults) {
    for (const { fullName, failureMessages, status: result } of assertionResults) {
      if (result !== 'failed') continue
      const passedAgain = again.has(`${name}: ${fullName}`)
      show(passedAgain ? 'FAILED AT FIRST, GREEN ALONE' : 'FAILED', name, fullName, failureMessages.join('\n'))
      if (!passedAgain) continue
      passedCount++
      failedCount--
    }
    if (status === 'failed' && message !== '') show('FAILED', name, 'outside its tests', message)
  }
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

/** @param {string} how @param {string} file @param {string} test @param {string} words */
function show(how, file, test, words) {
  const half = shownMaxChars / 2
  const short = words.length > shownMaxChars ? `${words.slice(0, half)}\n[…]\n${words.slice(-half)}` : words
  console.log(`${how} ${relative(process.cwd(), file)}: ${test}\n${short}\n`)
}
