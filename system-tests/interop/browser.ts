import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { stripTypeScriptTypes } from 'node:module'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type WebSocket, WebSocketServer } from 'ws'
import type { PageActions, PageWord } from './page.ts'

/** A page in a browser without a window. */
export interface Browser {
  /** Where the page comes from. */
  readonly origin: string
  /** What has happened to the devices of the page. */
  eventsOf(device: string, event: string): unknown[]
  call<Name extends keyof PageActions>(
    action: Name,
    ...args: Parameters<PageActions[Name]>
  ): Promise<Awaited<ReturnType<PageActions[Name]>>>
  close(): Promise<void>
}

/** The SDK and the frames as they are, without their types; nothing is bundled. */
const page = `<!doctype html><title>devices</title>
<script type="importmap">{"imports":{"@bufbuild/protobuf/wire":"/node_modules/@bufbuild/protobuf/dist/esm/wire/index.js"}}</script>
<script type="module">import { attend } from '/system-tests/interop/page.ts'; attend(location.host)</script>
`
const root = new URL('../..', import.meta.url).pathname
const served =
  /^\/(?:device-sdk|gen|system-tests\/interop|node_modules\/@bufbuild\/protobuf\/dist\/esm)\/[\w/-]+(?:\.[\w-]+)*\.[jt]s$/
/** From the browser's start to the page's first word. Some twenty times what it takes. */
const startTimeoutMs = 60_000
const flags = [
  '--headless=new',
  // Its own sandbox does not work for root in a container; it visits this page alone.
  '--no-sandbox',
  '--disable-gpu',
  '--disable-dev-shm-usage',
  '--disable-extensions',
  '--disable-background-networking',
  '--disable-component-update',
  '--no-first-run',
  '--no-proxy-server',
  // Without a port to be steered by, it ends once the page has loaded.
  '--remote-debugging-port=0',
]

/**
 * Starts Chromium (or what CHROMIUM names) with the page; once more when the page does not come to life. Rejects when there is no such command, and when
 * the second start is no better.
 */
export async function openBrowser(): Promise<Browser> {
  try {
    return await startBrowser()
  } catch {
    return startBrowser()
  }
}

async function startBrowser(): Promise<Browser> {
  const missing: string[] = []
  const server = createServer(async ({ url = '/' }, response) => {
    const text = url === '/' ? page : served.test(url) ? await script(url) : undefined
    if (text === undefined) missing.push(url)
    const type = url === '/' ? 'text/html; charset=utf-8' : 'text/javascript; charset=utf-8'
    response.writeHead(text === undefined ? 404 : 200, { 'content-type': type }).end(text)
  })
  const controls = new WebSocketServer({ server, path: '/control' })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

  const profile = await mkdtemp(join(tmpdir(), 'browser-'))
  const command = process.env.CHROMIUM ?? 'chromium'
  // A group of its own: a browser is many processes.
  const child = spawn(command, [...flags, `--user-data-dir=${profile}`, origin], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  let said = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    said = `${said}${chunk}`.slice(-4_000)
  })
  const ended = new Promise<string>((resolve) => {
    child.on('error', (error) => resolve(`${command} cannot be started: ${error.message}`))
    child.on('exit', (code, signal) => resolve(`${command} ended with ${code ?? signal}: ${said}`))
  })
  const close = async () => {
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) process.kill(-child.pid, 'SIGKILL')
    await ended
    controls.close()
    server.closeAllConnections()
    server.close()
    // Its processes may still write for a moment.
    await rm(profile, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 })
  }
  let control: WebSocket
  try {
    const late = AbortSignal.timeout(startTimeoutMs)
    const words = ended.then((words) => Promise.reject(new Error(words)))
    ;[control] = (await Promise.race([once(controls, 'connection', { signal: late }), words])) as [WebSocket]
  } catch (cause) {
    await close()
    throw new Error(`the page did not come to life; asked for in vain: ${missing.join(' ')}; the browser said: ${said}`, {
      cause,
    })
  }

  const events: Extract<PageWord, { device: string }>[] = []
  const calls = new Map<number, PromiseWithResolvers<unknown>>()
  control.on('message', (data) => {
    const word: PageWord = JSON.parse(String(data))
    if ('device' in word) return void events.push(word)
    const call = calls.get(word.call)
    calls.delete(word.call)
    if ('problem' in word) call?.reject(new Error(word.problem))
    else call?.resolve(word.value)
  })
  void ended.then((words) => {
    for (const call of calls.values()) call.reject(new Error(words))
  })

  let count = 0
  return {
    origin,
    eventsOf: (device, event) =>
      events.filter((word) => word.device === device && word.event === event).map(({ facts }) => facts),
    async call(action, ...args) {
      const call = Promise.withResolvers<unknown>()
      calls.set(++count, call)
      control.send(JSON.stringify({ call: count, action, args }))
      return (await call.promise) as never
    },
    close,
  }
}

async function script(path: string): Promise<string | undefined> {
  try {
    const source = await readFile(join(root, path), 'utf8')
    return path.endsWith('.ts') ? stripTypeScriptTypes(source) : source
  } catch {
    return undefined
  }
}
