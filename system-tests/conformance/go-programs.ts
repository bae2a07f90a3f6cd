import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { access, mkdir, mkdtemp, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import process from 'node:process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { cacheFolder } from '../servers/fetch.ts'
import { findCommand } from '../servers/tools.ts'

const run = promisify(execFile)
/** Compiling the larger of them takes most of a minute on two quiet cores, and many times that on busy ones. */
export const compileTimeoutMs = 30 * 60_000

/** Programs in Go that judge the plane from outside. The module in go-programs/ pins them, and builds with Go 1.19 and later. */
const packages = {
  h2spec: 'github.com/summerwind/h2spec/cmd/h2spec',
  grpcurl: 'github.com/fullstorydev/grpcurl/cmd/grpcurl',
} as const

const moduleFolder = fileURLToPath(new URL('./go-programs', import.meta.url))

/** The path of a program, compiled at first use and kept in the cache beside the servers' jars. Throws when there is no Go. */
export async function goProgram(name: keyof typeof packages): Promise<string> {
  const pins = await Promise.all(['go.mod', 'go.sum'].map((file) => readFile(join(moduleFolder, file))))
  const version = createHash('sha256').update(Buffer.concat(pins)).digest('hex').slice(0, 12)
  const folder = join(dirname(cacheFolder()), 'go-programs', version)
  const file = join(folder, name)
  if (await exists(file)) return file
  if ((await findCommand('go')) === undefined) {
    throw new Error(
      `go is not on PATH; the conformance tests compile ${name} with Go 1.19 or later, which Debian's golang-go brings.\n` +
        'Without it, `npm run test:unit` and `npm run test:servers` run all other tests.',
    )
  }
  process.stderr.write(`compiling ${name} (once, about a minute)\n`)
  await mkdir(folder, { recursive: true })
  // Whole or not at all: another run may compile the same, and one that is killed leaves no half a program.
  const build = await mkdtemp(join(folder, '.building-'))
  try {
    await run('go', ['build', '-mod=readonly', '-trimpath', '-o', join(build, name), packages[name]], {
      cwd: moduleFolder,
      timeout: compileTimeoutMs,
      env: { ...process.env, GOFLAGS: '', GOWORK: 'off', GOTOOLCHAIN: 'local', CGO_ENABLED: '0' },
    })
    await rename(join(build, name), file)
  } finally {
    await rm(build, { recursive: true, force: true })
  }
  return file
}

async function exists(file: string): Promise<boolean> {
  try {
    await access(file)
    return true
  } catch {
    return false
  }
}
