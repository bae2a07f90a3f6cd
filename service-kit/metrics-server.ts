import type { Server } from 'node:http'
import { createServer } from 'node:http'
import { formatHostPort, PortTakenError, parseHostPort } from './listen-address.ts'
import type { Metrics } from './metrics.ts'

/** Where metrics can be scraped. */
export interface MetricsServer {
  /** The `host:port` that it really has. */
  readonly address: string
  /** Ends it at once; a scrape under way is cut. */
  close(): Promise<void>
}

/** Serves `GET /metrics` on `host:port` (port 0: any). Throws PortTakenError when the port is in use. */
export async function serveMetrics(metrics: Metrics, listen: string): Promise<MetricsServer> {
  const wanted = parseHostPort(listen)
  if (wanted === undefined) throw new TypeError(`"${listen}" is not host:port`)
  const server = createServer({ maxHeaderSize: 8 * 1024, requestTimeout: 10_000, headersTimeout: 5_000 }, (request, response) => {
    const path = request.url?.split('?')[0]
    if (path !== '/metrics') return void response.writeHead(404).end()
    if (request.method !== 'GET') return void response.writeHead(405, { allow: 'GET' }).end()
    metrics.text().then(
      (body) => response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' }).end(body),
      () => response.writeHead(500).end(),
    )
  })
  // More scrapers than this are none of ours.
  server.maxConnections = 64
  const port = await listenOn(server, wanted.host, wanted.port, listen)
  return {
    address: formatHostPort({ host: wanted.host, port }),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

function listenOn(server: Server, host: string, port: number, asked: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      reject(cause.code === 'EADDRINUSE' ? new PortTakenError(asked, cause) : cause)
    })
    server.listen(port, host, () => {
      const bound = server.address()
      resolve(typeof bound === 'object' && bound !== null ? bound.port : port)
    })
  })
}
