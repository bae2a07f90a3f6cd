import { readFile } from 'node:fs/promises'
import type { Server } from 'node:net'
import { connect, createServer } from 'node:net'
import process from 'node:process'

const windowStart = 20_000
const windowSizeMin = 1_000

// Where this process goes on looking. Processes begin at different places, so that two test runs seldom meet.
let cursor = process.pid * 41

/**
 * Ports on which nobody listens on any of the hosts, found by listening there. They lie below the range from which the
 * system takes ports for outgoing connections: a client must not sit on the port of a server that is about to restart.
 * Another process may still take one before its server does, so who starts a server tries again with new ports.
 */
export async function freePorts(count: number, hosts: readonly string[] = ['127.0.0.1']): Promise<number[]> {
  const windowSize = (await outgoingRangeStart()) - windowStart
  const held: Server[] = []
  const ports: number[] = []
  try {
    for (let tries = 0; ports.length < count; tries++) {
      if (tries > count + 500) throw new Error(`no ${count} free ports on ${hosts.join(', ')}`)
      // A machine that uses nearly all ports for outgoing connections: let it choose.
      const wanted = windowSize < windowSizeMin ? 0 : windowStart + (cursor++ % windowSize)
      const port = await listenOnAll(wanted, hosts, held)
      if (port !== undefined) ports.push(port)
    }
  } finally {
    await Promise.all(held.map((server) => new Promise((resolve) => server.close(resolve))))
  }
  return ports
}

/** Whether something accepts connections there, within `timeoutMs`. */
export function portAnswers(host: string, port: number, timeoutMs = 1_000): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: timeoutMs })
    const answer = (yes: boolean) => {
      socket.destroy()
      resolve(yes)
    }
    socket.once('connect', () => answer(true))
    socket.once('error', () => answer(false))
    socket.once('timeout', () => answer(false))
  })
}

async function listenOnAll(wanted: number, hosts: readonly string[], held: Server[]): Promise<number | undefined> {
  let port = wanted
  for (const host of hosts) {
    const server = createServer()
    const listening = await new Promise<boolean>((resolve, reject) => {
      server.once('listening', () => resolve(true))
      server.once('error', (error: NodeJS.ErrnoException) => {
        if (error.code === 'EADDRINUSE') resolve(false)
        else reject(new Error(`cannot listen on ${host}: ${error.message}`, { cause: error }))
      })
      server.listen(port, host)
    })
    if (!listening) return undefined
    held.push(server)
    const address = server.address()
    if (address !== null && typeof address === 'object') port = address.port
  }
  return port
}

async function outgoingRangeStart(): Promise<number> {
  try {
    return Number.parseInt(await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8'), 10)
  } catch {
    // Not Linux: others begin at 49152.
    return 32_768
  }
}
