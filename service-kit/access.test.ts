import { ChannelCredentials } from 'nice-grpc'
import { Metadata, Status } from 'nice-grpc-common'
import { HealthDefinition } from 'nice-grpc-server-health'
import { afterAll, beforeAll, describe, expect } from 'vitest'
import type { RoleTable, TokenVerdict, TokenVerifier } from './access.ts'
import { type Caller, requireEdgeName } from './caller.ts'
import { serviceTransport } from './client-transport.ts'
import { systemClock } from './clock.ts'
import { callErrorOf } from './errors.ts'
import type { GrpcServerOptions } from './grpc-server.ts'
import { EchoDefinition } from './testing/echo-service.ts'
import { type GrpcFixture, test } from './testing/grpc-fixture.ts'
import { metricValue } from './testing/metric-value.ts'
import { openTlsFolder, type TlsFolder } from './testing/tls-fixture.ts'
import type { Tls } from './tls.ts'

let folder: TlsFolder
let server: Tls
beforeAll(async () => {
  folder = await openTlsFolder()
  server = await folder.open('server', ['role:router'])
})
afterAll(() => folder.close())

/** `bidi` is left out: nobody may call it. */
const roles: RoleTable = new Map([
  [EchoDefinition.unary.path, ['edge']],
  [EchoDefinition.serverStream.path, ['publisher', 'operator']],
])

/** Serves, and tells who called last. */
async function serve(grpc: GrpcFixture, options: Partial<GrpcServerOptions> = {}) {
  const seen: Caller[] = []
  const { address } = await grpc.serve(
    {
      async unary(request, context) {
        seen.push(context.caller)
        return request
      },
      async *serverStream(request, context) {
        seen.push(context.caller)
        yield request
        if (request.text === 'wait') await systemClock.sleep(10_000, context.signal)
      },
    },
    { tls: server, roles, ...options },
  )
  return { address, seen }
}

/** What a call came to: its status and reason, or `OK`. */
const ended = (call: Promise<unknown>) =>
  call.then(
    () => 'OK',
    (error: unknown) => {
      const { status, reason } = callErrorOf(error)
      return `${Status[status]} ${reason}`
    },
  )

/** A client with this certificate and token. */
function clientWith(grpc: GrpcFixture, address: string, tls: Tls, token?: string) {
  const connection = grpc.connect(address, { transport: serviceTransport(tls, false).to('router'), token })
  const client = connection.client(EchoDefinition)
  const drained = async (stream: AsyncIterable<unknown>) => {
    for await (const _ of stream);
  }
  return {
    connection,
    unary: (metadata?: Record<string, string>) => ended(client.unary({ text: '' }, { metadata: Metadata(metadata) })),
    serverStream: (text = '') => ended(drained(client.serverStream({ text }))),
    bidi: () => ended(drained(client.bidi((async function* () {})()))),
  }
}

describe('certificates', () => {
  test('each role may call what the table says, and nobody what is not in it', async ({ grpc }) => {
    const { address, seen } = await serve(grpc)
    const edge = clientWith(grpc, address, await folder.open('edge', ['role:edge', 'edge:a']))
    expect(await edge.unary()).toBe('OK')
    expect(await edge.serverStream()).toBe('PERMISSION_DENIED PERMISSION_MISSING')
    expect(await edge.bidi()).toBe('PERMISSION_DENIED PERMISSION_MISSING')
    const anna = clientWith(grpc, address, await folder.open('anna', ['role:operator', 'principal:anna']))
    expect(await anna.unary()).toBe('PERMISSION_DENIED PERMISSION_MISSING')
    expect(await anna.serverStream()).toBe('OK')
    expect(seen).toMatchObject([
      { principal: 'edge:a', roles: ['edge'], edgeNames: ['a'], shown: 'certificate' },
      { principal: 'anna', roles: ['operator'], edgeNames: [], shown: 'certificate' },
    ])
    expect(
      await metricValue(grpc.metrics, 'push_grpc_server_failures_total', {
        method: EchoDefinition.bidi.path,
        reason: 'PERMISSION_MISSING',
      }),
    ).toBe(1)
  })

  test('one that names no role, or a publisher without principal, is nobody; health is everyone’s', async ({ grpc }) => {
    const { address } = await serve(grpc)
    for (const uris of [[], ['role:publisher'], ['principal:x'], ['role:publisher', 'principal:x', 'principal:y']]) {
      const client = clientWith(grpc, address, await folder.open(`nobody-${uris.length}`, uris))
      expect(await client.serverStream()).toBe('UNAUTHENTICATED UNAUTHENTICATED')
      expect((await client.connection.client(HealthDefinition).check({ service: '' })).status).toBe(1)
    }
  })

  test('nobody can say of himself who he is', async ({ grpc }) => {
    const { address } = await serve(grpc)
    const client = clientWith(grpc, address, await folder.open('liar', ['role:publisher', 'principal:liar']))
    const identity = JSON.stringify({ roles: ['edge'], edgeNames: ['a'] })
    expect(await client.unary({ 'push-peer-identity': identity })).toBe('PERMISSION_DENIED PERMISSION_MISSING')
  })

  test('an edge acts for the names in its certificate', () => {
    const caller = {
      principal: 'edge:a',
      roles: ['edge'],
      edgeNames: ['a', 'b'],
      shown: 'certificate',
      expiresAtMs: undefined,
    } as const
    expect(() => requireEdgeName(caller, 'b')).not.toThrow()
    expect(() => requireEdgeName(caller, 'c')).toThrow('allows to act for a, b, not for edge "c"')
    expect(() => requireEdgeName({ ...caller, edgeNames: [] }, 'a')).toThrow('allows to act for no edge')
    expect(() => requireEdgeName({ ...caller, edgeNames: undefined }, 'c')).not.toThrow()
  })
})

describe('without TLS', () => {
  test('everybody is anonymous with every role, and may still not call what the table does not know', async ({ grpc }) => {
    const { address, seen } = await serve(grpc, { tls: undefined })
    const client = grpc.connect(address).client(EchoDefinition)
    expect(await client.unary({ text: 'hi' })).toEqual({ text: 'hi' })
    expect(seen).toMatchObject([{ principal: 'anonymous', shown: 'nothing', edgeNames: undefined }])
    const refused = (async () => {
      for await (const _ of client.bidi((async function* () {})()));
    })()
    await expect(refused).rejects.toThrow('anonymous may not call test.Echo/Bidi: nobody may call it')
  })
})

describe('tokens', () => {
  const verdicts: Record<string, TokenVerdict> = {
    anna: { ok: true, principal: 'anna', roles: ['operator'], expiresAtMs: Date.now() + 3_600_000 },
    old: { ok: false, verdict: 'expired', detail: 'the token has expired' },
    away: { ok: false, verdict: 'unavailable', detail: 'no keys' },
  }
  const tokens: TokenVerifier = {
    verify: async (token) =>
      token === 'brief'
        ? { ok: true, principal: 'brief', roles: ['publisher'], expiresAtMs: Date.now() + 300 }
        : (verdicts[token] ?? { ok: false, verdict: 'invalid', detail: 'no such token' }),
  }
  const certificateless = (grpc: GrpcFixture, address: string, token?: string) => clientWith(grpc, address, stranger, token)
  let stranger: Tls
  beforeAll(async () => {
    // Certified by our authorities so that it believes the server, but named nobody.
    stranger = await folder.open('stranger', [])
  })

  test('a token says who calls, also beside a certificate, and what does not hold is refused', async ({ grpc }) => {
    const { address, seen } = await serve(grpc, { tokens })
    expect(await certificateless(grpc, address, 'anna').serverStream()).toBe('OK')
    expect(await certificateless(grpc, address, 'anna').unary()).toBe('PERMISSION_DENIED PERMISSION_MISSING')
    expect(await certificateless(grpc, address).serverStream()).toBe('UNAUTHENTICATED UNAUTHENTICATED')
    expect(await certificateless(grpc, address, 'old').serverStream()).toBe('UNAUTHENTICATED UNAUTHENTICATED')
    expect(await certificateless(grpc, address, 'token-of-nobody').serverStream()).toBe('UNAUTHENTICATED UNAUTHENTICATED')
    expect(await certificateless(grpc, address, 'away').serverStream()).toBe('UNAVAILABLE KEYS_UNAVAILABLE')
    const edge = await folder.open('edge', ['role:edge', 'edge:a'])
    expect(await clientWith(grpc, address, edge).unary()).toBe('OK')
    expect(await clientWith(grpc, address, edge).unary({ authorization: 'Basic eA==' })).toBe('UNAUTHENTICATED UNAUTHENTICATED')
    expect(await clientWith(grpc, address, edge, 'anna').unary()).toBe('PERMISSION_DENIED PERMISSION_MISSING')
    expect(seen[0]).toMatchObject({ principal: 'anna', roles: ['operator'], edgeNames: [], shown: 'token' })
    expect(JSON.stringify(grpc.log.entries)).not.toContain('token-of-nobody')
  })

  test('a caller without any certificate is known by its token, and without a token it gets no further than health', async ({
    grpc,
  }) => {
    const { address, seen } = await serve(grpc, { tokens })
    const bare = (token?: string) => {
      const credentials = ChannelCredentials.createSsl(Buffer.from(folder.authority.certificate))
      const connection = grpc.connect(address, { transport: { kind: 'tls', credentials, serverName: 'localhost' }, token })
      return { connection, unary: ended(connection.client(EchoDefinition).unary({ text: '' }, { deadlineMs: 10_000 })) }
    }
    expect(await bare('anna').unary).toBe('PERMISSION_DENIED PERMISSION_MISSING')
    const { connection, unary } = bare()
    expect(await unary).toBe('UNAUTHENTICATED UNAUTHENTICATED')
    expect((await connection.client(HealthDefinition).check({ service: '' }, { deadlineMs: 10_000 })).status).toBe(1)
    // A certificate of somebody else's authority is none, whatever it says.
    const foreign = await openTlsFolder()
    try {
      const { certificate, key } = await foreign.authority.issue({ commonName: 'x', uris: ['push:role:edge', 'push:edge:a'] })
      const credentials = ChannelCredentials.createSsl(
        Buffer.from(folder.authority.certificate),
        Buffer.from(key),
        Buffer.from(certificate),
      )
      const shown = grpc.connect(address, { transport: { kind: 'tls', credentials, serverName: 'localhost' } })
      expect(await ended(shown.client(EchoDefinition).unary({ text: '' }, { deadlineMs: 10_000 }))).toBe(
        'UNAUTHENTICATED UNAUTHENTICATED',
      )
    } finally {
      foreign.close()
    }
    expect(seen).toEqual([])
  })

  test('a stream ends when the token that opened it expires', async ({ grpc }) => {
    const { address } = await serve(grpc, { tokens })
    expect(await certificateless(grpc, address, 'brief').serverStream('wait')).toBe('UNAUTHENTICATED UNAUTHENTICATED')
  })

  test('a server that takes no tokens does not look at them', async ({ grpc }) => {
    const { address } = await serve(grpc)
    const edge = await folder.open('edge', ['role:edge', 'edge:a'])
    expect(await clientWith(grpc, address, edge, 'nonsense').unary()).toBe('OK')
  })
})
