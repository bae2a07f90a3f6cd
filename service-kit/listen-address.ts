import { StartError } from './start-error.ts'

/** Another process already listens where this one wants to. */
export class PortTakenError extends StartError {
  override readonly name = 'PortTakenError'
  /** `host:port` as it was asked for. */
  readonly address: string

  constructor(address: string, cause?: unknown) {
    super(`${address} is taken by another process; stop that one or choose another port`, { cause })
    this.address = address
  }
}

/** A host with a port, taken apart. */
export interface HostPort {
  /** Without the brackets of an IPv6 address. */
  readonly host: string
  /** 0 to 65535. */
  readonly port: number
}

/** Reads `host:port`, with IPv6 addresses in brackets. Undefined when it is not of that form. */
export function parseHostPort(text: string): HostPort | undefined {
  const match = /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?\.?)):(\d{1,5})$/.exec(text)
  const host = match?.[1] ?? match?.[2]
  const port = Number(match?.[3])
  return host === undefined || port > 65_535 ? undefined : { host, port }
}

/** Reads what can be dialled: `host:port[,host:port…]` or `dns:///name:port`. Undefined when it is not of that form. */
export function parseAddressList(text: string): readonly HostPort[] | undefined {
  const list = text.startsWith('dns:///') ? [text.slice('dns:///'.length)] : text.split(',')
  const parsed = list.flatMap((one) => parseHostPort(one.trim()) ?? [])
  return parsed.length === list.length && parsed.every((one) => one.port > 0) ? parsed : undefined
}

/** Writes `host:port`, with brackets where the host is an IPv6 address. */
export function formatHostPort(address: HostPort): string {
  return address.host.includes(':') ? `[${address.host}]:${address.port}` : `${address.host}:${address.port}`
}

/** Whether only this machine can reach an address: 127.0.0.0/8, ::1 or localhost. */
export function isLoopback(address: string): boolean {
  const host = parseHostPort(address)?.host
  return host !== undefined && (host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host))
}
