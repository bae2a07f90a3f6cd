import { Server } from 'node:net'
import type { Clock, Timer } from '../../service-kit/clock.ts'
import { formatHostPort, PortTakenError, parseHostPort } from '../../service-kit/listen-address.ts'
import type { Log } from '../../service-kit/log.ts'
import type { EdgeMetrics } from '../edge-metrics.ts'
import type { PortLimits } from './port-limits.ts'

/** The open port, which closes by itself while the edge is nearly full: a balancer, or the kernel where edges share a port, then goes elsewhere. */
export interface Listener {
  /** The `host:port` that it really has, also while it is closed. */
  readonly address: string
  /** To be called when there are more or fewer connections, or other limits. */
  check(): void
  /** It opens no more. Closing is the server's. */
  stop(): void
}

const backlog = 1_024
/** Reopened when so much of the limit has become free. */
const reopenPercent = 5
const reopenRetryMs = 1_000
/** Accepting fails over and over when it does: one line in this time says as much. */
const errorLogMs = 1_000

/** Opens the port. Throws PortTakenError when it is in use. */
export async function openListener(
  server: Server,
  asked: string,
  options: {
    readonly limits: () => PortLimits
    readonly connectionCount: () => number
    readonly clock: Clock
    readonly log: Log
    readonly metrics: Pick<EdgeMetrics, 'listenerOpen' | 'acceptErrors'>
  },
): Promise<Listener> {
  const { clock, log, metrics } = options
  const wanted = parseHostPort(asked)
  if (wanted === undefined) throw new TypeError(`"${asked}" is not host:port`)
  let state: 'open' | 'closed' | 'opening' = 'opening'
  let retry: Timer | undefined
  let stopped = false
  let errorLoggedAt = Number.NEGATIVE_INFINITY

  const port = await listen(server, wanted.host, wanted.port).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'EADDRINUSE' ? new PortTakenError(asked, cause) : cause
  })
  const address = formatHostPort({ host: wanted.host, port })
  const show = (next: typeof state) => {
    state = next
    metrics.listenerOpen.set(next === 'open' ? 1 : 0)
  }
  show('open')
  // The system may be short of descriptors or memory: no reason to end those who are here. What `listen` fails with, it has told already.
  server.on('error', (cause) => {
    if (state === 'opening') return
    metrics.acceptErrors.inc()
    if (clock.monotonic() - errorLoggedAt < errorLogMs) return
    errorLoggedAt = clock.monotonic()
    log.error('a connection could not be accepted', { address, cause })
  })

  const reopen = async () => {
    state = 'opening'
    try {
      await listen(server, wanted.host, port)
    } catch (cause) {
      show('closed')
      log.error('the device port could not be opened again; trying again', { address, cause })
      if (!stopped) {
        retry = clock.after(reopenRetryMs, () => {
          retry = undefined
          check()
        })
      }
      return
    }
    show('open')
    log.info('device port opened again', { address, connection_count: options.connectionCount() })
    if (stopped) closeHandle(server)
    else check()
  }

  function check() {
    if (stopped || state === 'opening' || retry !== undefined) return
    const { connectionLimit, listenerClosePercent } = options.limits()
    const count = options.connectionCount()
    const closeAt =
      listenerClosePercent >= 100 ? Number.POSITIVE_INFINITY : Math.ceil((connectionLimit * listenerClosePercent) / 100)
    if (state === 'open' && count >= closeAt) {
      closeHandle(server)
      show('closed')
      log.warn('device port closed: the edge is nearly full', {
        address,
        connection_count: count,
        connection_limit: connectionLimit,
      })
    } else if (state === 'closed' && count <= closeAt - Math.max(1, Math.floor((connectionLimit * reopenPercent) / 100))) {
      void reopen()
    }
  }

  return {
    address,
    check,
    stop() {
      stopped = true
      retry?.cancel()
      retry = undefined
    },
  }
}

/** Closes the listening socket alone: the server's connections and its timers go on, which an HTTP server's own `close` would end. */
function closeHandle(server: Server): void {
  Server.prototype.close.call(server)
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const onError = (cause: Error) => {
      server.off('listening', onListening)
      reject(cause)
    }
    const onListening = () => {
      server.off('error', onError)
      const bound = server.address()
      resolve(typeof bound === 'object' && bound !== null ? bound.port : port)
    }
    server.once('error', onError)
    server.once('listening', onListening)
    server.listen({ host, port, backlog })
  })
}
