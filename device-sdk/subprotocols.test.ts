import { expect, test } from 'vitest'
import { subprotocolsFor } from './subprotocols.ts'

test('a JWT goes as it is', () => {
  expect(subprotocolsFor('push.v1.json', 'eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0diJ9.c2ln-_')).toEqual([
    'push.v1.json',
    'push.bearer.eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0diJ9.c2ln-_',
  ])
})

test('a token with characters that no subprotocol may have goes in base64url, which has none of them', () => {
  const [, bearer = ''] = subprotocolsFor('push.v1.protobuf', 'dev:tv~1/haus-ä')
  expect(bearer).toMatch(/^push\.bearer\.[A-Za-z0-9_-]+$/)
  expect(Buffer.from(bearer.slice('push.bearer.'.length), 'base64url').toString()).toBe('dev:tv~1/haus-ä')
})
