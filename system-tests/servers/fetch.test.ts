import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, truncate, utimes, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import process from 'node:process'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { cacheFolder, fetchJars, type ServerKind } from './fetch.ts'

// A `mvn` and a `java` that are shell scripts: what is tested is what the cache looks like when Maven fails, hangs or dies.

let folder: string
let cache: string
let said: string[]

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'fetch-test-'))
  cache = join(folder, 'cache')
  said = []
  await mkdir(join(folder, 'bin'))
  vi.stubEnv('PATH', `${join(folder, 'bin')}:/usr/bin:/bin`)
  vi.stubEnv('CALLS', join(folder, 'calls'))
  await command('java', `echo 'openjdk version "17.0.1"' >&2`)
  await maven('')
})

afterEach(async () => {
  vi.unstubAllEnvs()
  await rm(folder, { recursive: true, force: true })
})

async function command(name: string, script: string): Promise<void> {
  const file = join(folder, 'bin', name)
  await writeFile(file, `#!/bin/sh\n${script}\n`)
  await chmod(file, 0o755)
}

/** A Maven that notes its call, writes one jar, does as told, and writes a second one. */
function maven(between: string): Promise<void> {
  const find = 'for word in "$@"; do case $word in -DoutputDirectory=*) to=' + '$' + '{word#-DoutputDirectory=};; esac; done'
  return command('mvn', `${find}\necho call >> "$CALLS"\nprintf one > "$to/a.jar"\n${between}\nprintf three > "$to/b.jar"`)
}

async function callCount(): Promise<number> {
  return (await readFile(join(folder, 'calls'), 'utf8').catch(() => '')).split('\n').length - 1
}

function fetchHere(kind: ServerKind = 'kafka'): Promise<string[]> {
  return fetchJars(kind, { cache, retryPauseMs: 1, say: (line) => said.push(line) })
}

/** Another process that fetches; prints the names of its jars. */
function fetchElsewhere() {
  const script = `import(${JSON.stringify(new URL('./fetch.ts', import.meta.url).href)}).then(async ({ fetchJars }) => {
    console.log((await fetchJars('kafka', { cache: ${JSON.stringify(cache)} })).length)
  })`
  return spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'ignore'] })
}

test('the cache is a folder of the user, outside any clone, unless the environment names one', () => {
  expect(cacheFolder({ PUSHPLANE_SERVERS_CACHE: '/srv/jars', XDG_CACHE_HOME: '/home/me/cache' })).toBe('/srv/jars')
  expect(cacheFolder({ XDG_CACHE_HOME: '/home/me/cache' })).toBe('/home/me/cache/pushplane/servers')
  expect(cacheFolder({})).toMatch(/\/\.cache\/pushplane\/servers$/)
})

test('jars are fetched once', async () => {
  const jars = await fetchHere()
  expect(jars.map((jar) => basename(jar))).toEqual(['a.jar', 'b.jar'])
  expect(await fetchHere()).toEqual(jars)
  expect(await callCount()).toBe(1)
  expect(said).toEqual([`fetching kafka-4.3.1 from Maven Central into ${cache} (once, about a minute)`])
})

test('a failed download is tried three times, and the error shows what Maven said', async () => {
  await maven('echo "Could not transfer artifact"; exit 1')
  await expect(fetchHere()).rejects.toThrow(/3 attempts[\s\S]*Could not transfer artifact/)
  expect(await callCount()).toBe(3)
  expect(await readdir(cache)).toEqual([])
})

test('a download that works at the second attempt is enough', async () => {
  await maven('if [ $(grep -c call "$CALLS") = 1 ]; then exit 1; fi')
  expect(await fetchHere()).toHaveLength(2)
  expect(await callCount()).toBe(2)
})

test('a Maven that succeeds without any jar is a failure', async () => {
  await command('mvn', 'exit 0')
  await expect(fetchHere()).rejects.toThrow('no complete set of jars')
})

test('a folder with a jar missing or cut short is fetched again', async () => {
  const [first = '', second = ''] = await fetchHere()
  await rm(first)
  await fetchHere()
  expect((await stat(first)).size).toBe(3)
  await truncate(second, 2)
  await fetchHere()
  expect((await stat(second)).size).toBe(5)
  expect(await callCount()).toBe(3)
  expect(await readdir(cache)).toEqual(['kafka-4.3.1'])
})

test('a fetch that was killed half-way leaves nothing that counts, and does not stop the next one', async () => {
  await maven('exec sleep 20')
  const killed = fetchElsewhere()
  await vi.waitFor(async () => expect(await callCount()).toBe(1), { timeout: 10_000 })
  killed.kill('SIGKILL')
  await once(killed, 'exit')
  const [abandoned = ''] = await readdir(cache)
  await maven('')
  expect(await fetchHere()).toHaveLength(2)
  expect((await readdir(cache)).sort()).toEqual([abandoned, 'kafka-4.3.1'])

  // It is swept once no download can still be at work in it.
  const longAgo = Date.now() / 1000 - 3600
  await utimes(join(cache, abandoned), longAgo, longAgo)
  await fetchHere('cassandra')
  expect((await readdir(cache)).sort()).toEqual(['cassandra-5.0.8', 'kafka-4.3.1'])
})

test('two processes that fetch at once both end with the one complete folder', async () => {
  await maven('while [ $(grep -c call "$CALLS") -lt 2 ]; do sleep 0.05; done')
  const output = await Promise.all(
    [fetchElsewhere(), fetchElsewhere()].map(async (child) => {
      const text = child.stdout.setEncoding('utf8').toArray()
      const [code] = await once(child, 'exit')
      return { code, text: (await text).join('') }
    }),
  )
  expect(output).toEqual([
    { code: 0, text: '2\n' },
    { code: 0, text: '2\n' },
  ])
  expect(await readdir(cache)).toEqual(['kafka-4.3.1'])
})
