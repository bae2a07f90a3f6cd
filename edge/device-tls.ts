import type { SecureContextOptions } from 'node:tls'
import type { Clock } from '../service-kit/clock.ts'
import type { Log } from '../service-kit/log.ts'
import type { Metrics } from '../service-kit/metrics.ts'
import { namedFile } from '../service-kit/named-file.ts'
import type { Reloads } from '../service-kit/reloads.ts'
import { checkCertificate, readCertificates } from '../service-kit/tls.ts'
import { watchFiles } from '../service-kit/watched-files.ts'
import type { IdentityConfig } from './auth/identity-settings.ts'

/** What the device port shows and believes. New connections use what is in force when they open; open ones stay. */
export interface DeviceTls {
  /** Now in force. */
  readonly context: SecureContextOptions
  /** Clients are asked for certificates. */
  readonly asksClients: boolean
  /** Told of each later one. One listener. */
  onChange(use: (context: SecureContextOptions) => void): void
  close(): void
}

export interface DeviceTlsOptions {
  readonly config: Pick<IdentityConfig, 'deviceTlsCertFile' | 'deviceTlsKeyFile' | 'deviceClientCaFile'>
  readonly clock: Clock
  readonly log: Log
  readonly metrics: Metrics
  readonly reloads?: Reloads | undefined
}

/** Reads the files and keeps them up to date; undefined when there is no TLS. Throws StartError with what is wrong. */
export function openDeviceTls({ config, clock, log, metrics, reloads }: DeviceTlsOptions): DeviceTls | undefined {
  const { deviceTlsCertFile, deviceTlsKeyFile, deviceClientCaFile } = config
  if (deviceTlsCertFile === undefined || deviceTlsKeyFile === undefined) return undefined
  const certificate = { setting: 'EDGE_DEVICE_TLS_CERT_FILE', path: deviceTlsCertFile }
  const key = { setting: 'EDGE_DEVICE_TLS_KEY_FILE', path: deviceTlsKeyFile }
  const authorities = namedFile('EDGE_DEVICE_CLIENT_CA_FILE', deviceClientCaFile)
  const expiry = metrics.gauge(
    'push_edge_device_certificate_expire_time_seconds',
    'When the certificate of the device port expires, in seconds since the epoch',
  )
  let use = (_context: SecureContextOptions): void => {}
  const watched = watchFiles({
    name: 'device port certificate',
    files: [certificate, key, ...(authorities ? [authorities] : [])],
    parse: ([cert, keyText, ca]) => {
      if (cert === undefined || keyText === undefined) throw new Error('two files were to be read')
      const { expireTimeMs } = checkCertificate({ certificate, key }, { certificate: cert, key: keyText }, clock.now())
      if (authorities !== undefined && ca !== undefined) readCertificates(ca, authorities)
      const context: SecureContextOptions = { cert, key: keyText, minVersion: 'TLSv1.2', ...(ca !== undefined && { ca }) }
      return { context, expireTimeMs }
    },
    onChange({ context, expireTimeMs }) {
      expiry.set(expireTimeMs / 1_000)
      use(context)
    },
    clock,
    log,
    metrics,
    reloads,
  })
  expiry.set(watched.value.expireTimeMs / 1_000)
  return {
    get context() {
      return watched.value.context
    },
    asksClients: authorities !== undefined,
    onChange(listener) {
      use = listener
    },
    close: watched.close,
  }
}
