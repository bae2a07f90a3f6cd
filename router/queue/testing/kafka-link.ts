import { connect, createServer, type Server, Socket } from 'node:net'
import type { ISocketFactory } from 'kafkajs'

/** The way from a queue to Kafka, which a test can cut, and on which it can break bytes. */
export interface KafkaLink {
  readonly socketFactory: ISocketFactory
  /** Ends all connections and refuses new ones. */
  cut(): void
  mend(): void
  /** Keeps back what the queue sends, or what Kafka answers; connections stay open. */
  hold(direction: 'requests' | 'answers'): void
  /** Lets everything through again, what was kept back first. */
  release(): void
  /** From now on this text is replaced wherever it comes from Kafka; both of one length. */
  corrupt(from: string, to: string): void
  close(): Promise<void>
}

/** Opens a proxy to one broker. Kafka names its own address to clients; `socketFactory` has them come this way all the same. */
export async function openKafkaLink(broker: string): Promise<KafkaLink> {
  const [host = '', port = ''] = broker.split(':')
  const sockets = new Set<Socket>()
  let whole = true
  let replacement: { from: Buffer; to: Buffer } | undefined

  let held: 'requests' | 'answers' | undefined
  let kept: Array<() => void> = []

  const pass = (direction: 'requests' | 'answers', act: () => void) => {
    if (held === direction) kept.push(act)
    else act()
  }
  const track = (socket: Socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    socket.on('error', () => socket.destroy())
  }
  const server: Server = createServer((down) => {
    track(down)
    if (!whole) {
      down.destroy()
      return
    }
    const up = connect(Number(port), host)
    track(up)
    down.on('data', (bytes) => pass('requests', () => up.write(bytes)))
    up.on('data', (bytes) => pass('answers', () => down.write(replaced(bytes))))
    down.on('close', () => up.destroy())
    up.on('close', () => down.destroy())
  })
  const replaced = (bytes: Buffer): Buffer => {
    if (!replacement) return bytes
    const { from, to } = replacement
    for (let at = bytes.indexOf(from); at >= 0; at = bytes.indexOf(from, at + 1)) to.copy(bytes, at)
    return bytes
  }
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const proxyPort = typeof address === 'object' && address ? address.port : 0

  return {
    socketFactory: ({ onConnect }) => new Socket().connect(proxyPort, '127.0.0.1', onConnect),
    hold(direction) {
      held = direction
    },
    release() {
      held = undefined
      for (const act of kept) act()
      kept = []
    },
    cut() {
      whole = false
      kept = []
      for (const socket of sockets) socket.destroy()
    },
    mend() {
      whole = true
    },
    corrupt(from, to) {
      replacement = { from: Buffer.from(from), to: Buffer.from(to) }
    },
    close: async () => {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
