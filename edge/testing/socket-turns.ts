import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

/** Waits by what has happened, not by time, for the sockets of this process. */
export interface SocketTurns {
  /**
   * Resolves when what was on its way between sockets of this process has arrived `count` times over: each turn is a byte that goes to a
   * server of this process and back, behind everything that was written before it. It takes as long as the machine needs.
   */
  pass(count: number): Promise<void>
  close(): void
}

export async function openSocketTurns(): Promise<SocketTurns> {
  const server = createServer((socket) => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const socket: Socket = connect(port, '127.0.0.1')
  socket.setNoDelay(true)
  await once(socket, 'connect')
  return {
    async pass(count) {
      for (let turn = 0; turn < count; turn++) {
        const back = once(socket, 'data')
        socket.write('.')
        await back
      }
    },
    close() {
      socket.destroy()
      server.close()
    },
  }
}
