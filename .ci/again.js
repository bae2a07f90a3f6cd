// Runs once more, and alone, the test files in which a few tests failed: node again.js vitest.json again.json. Exits 0 when the second run is green.
// A machine that stands still for seconds makes tests fail that measure nothing else. What must not come right at a second try is not tried again:
// many failures, a file that could not run, and every broken promise that the checker of the system tests has found.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'

const [firstFile = '', againFile = ''] = process.argv.slice(2)
/** More failing tests than these are no accident of the machine. */
const againMaxTests = 3
/** How the checker and the simulation begin what they throw. */
const brokenPromise = /\d+ violations with seed|\bseed \d+/

if (!existsSync(firstFile)) process.exit(1)
const { testResults } = JSON.parse(readFileSync(firstFile, 'utf8'))
const failedFiles = testResults.filter((/** @type {{status: string}} */ { status }) => status === 'failed')
const failures = failedFiles.flatMap((/** @type {any} */ { assertionResults }) =>
  assertionResults.filter((/** @type {{status: string}} */ { status }) => status === 'failed'),
)
const outside = failedFiles.some((/** @type {{message: string}} */ { message }) => message !== '')
const promises = failures.some((/** @type {{failureMessages: string[]}} */ { failureMessages }) =>
  brokenPromise.test(failureMessages.join('\n')),
)
if (failures.length === 0 || failures.length > againMaxTests || outside || promises) process.exit(1)

const names = failedFiles.map((/** @type {{name: string}} */ { name }) => name)
console.log(`${failures.length} failed; running once more, alone: ${names.join(', ')}`)
const { status } = spawnSync('node_modules/.bin/vitest', ['run', ...names], {
  stdio: 'inherit',
  env: { ...process.env, VITEST_JSON: againFile },
})
process.exit(status ?? 1)
