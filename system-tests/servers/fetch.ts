import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, join } from 'node:path'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { requireTools } from './tools.ts'

export type ServerKind = 'kafka' | 'cassandra'

interface Artifact {
  /** Names the folder in the cache, so that another version is another folder. */
  readonly version: string
  /** `group:artifact:version`, with everything they need at run time. */
  readonly coordinates: readonly string[]
}

const artifacts: Readonly<Record<ServerKind, Artifact>> = {
  kafka: { version: 'kafka-4.3.1', coordinates: ['org.apache.kafka:kafka_2.13:4.3.1', 'org.slf4j:slf4j-simple:1.7.36'] },
  cassandra: { version: 'cassandra-5.0.8', coordinates: ['org.apache.cassandra:cassandra-all:5.0.8'] },
}

const attemptCountMax = 3
const attemptTimeoutMs = 10 * 60_000
const retryPauseMs = 3_000
/** A temporary folder older than this belongs to a fetch that was killed. */
const abandonedAfterMs = 2 * attemptTimeoutMs
/** In a complete folder: name and size in bytes of every jar. */
const listName = 'jars.json'
const temporaryPrefix = '.fetching-'

export interface FetchOptions {
  /** Folder that keeps the jars; default: `cacheFolder()`. */
  readonly cache?: string
  /** Pause before the second attempt, twice as long before the third; default 3 s. */
  readonly retryPauseMs?: number
  /** Gets a line when a download begins; default: stderr. */
  readonly say?: (line: string) => void
}

/** `PUSHPLANE_SERVERS_CACHE`, or a folder in the user's cache folder: a fresh clone finds what an older one has fetched. */
export function cacheFolder(env: NodeJS.ProcessEnv = process.env): string {
  if (env.PUSHPLANE_SERVERS_CACHE) return env.PUSHPLANE_SERVERS_CACHE
  return join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'pushplane', 'servers')
}

// One Maven at a time: two would write into one local repository.
let last: Promise<unknown> = Promise.resolve()

/**
 * The jars of a server, as absolute paths in a stable order. Fetches them from Maven Central when the cache has them not,
 * or not all of them. A folder in the cache appears complete or not at all, whoever is killed when, and two processes
 * that fetch at once end with one good folder. Throws what is missing (Java, Maven) or how the last attempt failed.
 */
export function fetchJars(kind: ServerKind, options: FetchOptions = {}): Promise<string[]> {
  const result = last.then(() => fetchInTurn(kind, options))
  last = result.catch(() => undefined)
  return result
}

async function fetchInTurn(kind: ServerKind, options: FetchOptions): Promise<string[]> {
  const cache = options.cache ?? cacheFolder()
  const artifact = artifacts[kind]
  const folder = join(cache, artifact.version)
  const present = await completeJars(folder)
  await requireTools({ maven: present === undefined })
  if (present !== undefined) return present

  await mkdir(cache, { recursive: true })
  await removeAbandoned(cache)
  const say = options.say ?? ((line: string) => process.stderr.write(`${line}\n`))
  say(`fetching ${artifact.version} from Maven Central into ${cache} (once, about a minute)`)
  for (let attempt = 1; ; attempt++) {
    const temporary = await mkdtemp(join(cache, `${temporaryPrefix}${artifact.version}-`))
    try {
      const pomFile = join(temporary, 'pom.xml')
      const target = join(temporary, 'lib')
      await mkdir(target)
      await writeFile(pomFile, pom(artifact))
      await runMaven(pomFile, target)
      await writeFile(join(target, listName), JSON.stringify(await sizes(target)))
      await putInPlace(target, folder)
      const jars = await completeJars(folder)
      if (jars === undefined) throw new Error(`the download left no complete set of jars in ${folder}`)
      return jars
    } catch (error) {
      if (attempt === attemptCountMax) {
        throw new Error(`${artifact.version} could not be fetched in ${attemptCountMax} attempts: ${String(error)}`, {
          cause: error,
        })
      }
    } finally {
      await rm(temporary, { recursive: true, force: true })
    }
    await delay((options.retryPauseMs ?? retryPauseMs) * attempt)
  }
}

/** The jars of a folder, or undefined when any of its list is absent or of another size. */
async function completeJars(folder: string): Promise<string[] | undefined> {
  let list: Record<string, number>
  try {
    list = JSON.parse(await readFile(join(folder, listName), 'utf8'))
  } catch {
    return undefined
  }
  const names = Object.keys(list).sort()
  for (const name of names) {
    const size = await stat(join(folder, name)).then(
      (found) => found.size,
      () => undefined,
    )
    if (size !== list[name]) return undefined
  }
  return names.length === 0 ? undefined : names.map((name) => join(folder, name))
}

async function sizes(folder: string): Promise<Record<string, number>> {
  const list: Record<string, number> = {}
  for (const name of await readdir(folder)) {
    if (name.endsWith('.jar')) list[name] = (await stat(join(folder, name))).size
  }
  return list
}

/** Renames are atomic: others see the old folder, none, or the whole new one. */
async function putInPlace(source: string, folder: string): Promise<void> {
  try {
    await rename(source, folder)
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined
    if (code !== 'ENOTEMPTY' && code !== 'EEXIST') throw error
    // Someone else was faster, or what lies there is damaged.
    if ((await completeJars(folder)) !== undefined) return
    const discarded = await mkdtemp(join(folder, '..', `${temporaryPrefix}${basename(folder)}-`))
    await rename(folder, join(discarded, 'damaged'))
    await rename(source, folder)
    await rm(discarded, { recursive: true, force: true })
  }
}

async function removeAbandoned(cache: string): Promise<void> {
  for (const name of await readdir(cache)) {
    if (!name.startsWith(temporaryPrefix)) continue
    const folder = join(cache, name)
    const age = await stat(folder).then(
      (found) => Date.now() - found.mtimeMs,
      () => 0,
    )
    if (age > abandonedAfterMs) await rm(folder, { recursive: true, force: true })
  }
}

function pom(artifact: Artifact): string {
  const dependencies = artifact.coordinates.map((coordinate) => {
    const [group, name, version] = coordinate.split(':')
    return `<dependency><groupId>${group}</groupId><artifactId>${name}</artifactId><version>${version}</version></dependency>`
  })
  return [
    '<project><modelVersion>4.0.0</modelVersion>',
    `<groupId>pushplane</groupId><artifactId>servers</artifactId><version>1</version><packaging>pom</packaging>`,
    `<dependencies>${dependencies.join('')}</dependencies></project>`,
  ].join('')
}

function runMaven(pomFile: string, targetFolder: string): Promise<void> {
  // A jar whose checksum does not match fails the download instead of being kept with a warning.
  const args = ['-B', '-q', '--strict-checksums', '-f', pomFile, 'dependency:copy-dependencies', '-DincludeScope=runtime']
  return new Promise((resolve, reject) => {
    execFile('mvn', [...args, `-DoutputDirectory=${targetFolder}`], { timeout: attemptTimeoutMs }, (error, stdout, stderr) => {
      if (error === null) return resolve()
      const words = `${stdout}\n${stderr}`.trim().split('\n').slice(-15).join('\n')
      reject(new Error(error.killed ? `mvn did not end within ${attemptTimeoutMs / 60_000} minutes` : `mvn failed:\n${words}`))
    })
  })
}
