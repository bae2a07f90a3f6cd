import { connect, createServer, type Server, type Socket } from 'node:net'

/** Stands between those who dial it and one service, and can cut them off. */
export interface LinkProxy {
  /** `host:port` to dial instead of the service. */
  readonly address: string
  /** From now on nothing passes, and nobody is told: what is sent waits in buffers, as on a network that has lost its way. */
  cut(): void
  /** What waited goes on. */
  heal(): void
  close(): Promise<void>
}

/** Listens on `port` of 127.0.0.1 for connections to `target`, `host:port`. */
export async function startLinkProxy(port: number, target: string): Promise<LinkProxy> {
  const [host = '', targetPort = ''] = target.split(':')
  const pairs = new Set<readonly [Socket, Socket]>()
  let open = true

  const join = ([near, far]: readonly [Socket, Socket]) => {
    near.pipe(far)
    far.pipe(near)
  }
  const part = ([near, far]: readonly [Socket, Socket]) => {
    near.unpipe(far)
    far.unpipe(near)
    near.pause()
    far.pause()
  }
  const server: Server = createServer((near) => {
    const far = connect({ host, port: Number(targetPort) })
    const pair = [near, far] as const
    pairs.add(pair)
    const end = () => {
      pairs.delete(pair)
      near.destroy()
      far.destroy()
    }
    for (const socket of pair) socket.on('error', end).on('close', end)
    if (open) join(pair)
    else part(pair)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(port, '127.0.0.1', resolve)
  })
  return {
    address: `127.0.0.1:${port}`,
    cut() {
      open = false
      for (const pair of pairs) part(pair)
    },
    heal() {
      open = true
      for (const pair of pairs) join(pair)
    },
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const [near, far] of pairs) {
        near.destroy()
        far.destroy()
      }
      await closed
    },
  }
}
