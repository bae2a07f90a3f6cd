import { expect, test } from 'vitest'
import { edgeNameOf, identityOfAltName } from './peer-identity.ts'

test('roles, edge names and the principal are read from the URIs', () => {
  expect(
    identityOfAltName(
      'DNS:localhost, IP Address:127.0.0.1, URI:push:role:edge, URI:push:edge:a, URI:push:edge:b, URI:https://x.y/z',
    ),
  ).toEqual({ roles: ['edge'], edgeNames: ['a', 'b'], principal: undefined })
  expect(identityOfAltName('URI:push:role:publisher, URI:push:role:operator, URI:push:principal:anna@example.org')).toEqual({
    roles: ['publisher', 'operator'],
    edgeNames: [],
    principal: 'anna@example.org',
  })
})

test.each([
  ['nothing', undefined],
  ['no URI', 'DNS:push:role:edge, email:push:role:edge'],
  ['a role that is none', 'URI:push:role:king'],
  ['a name with a comma, which Node quotes', 'URI:"http://x, URI:push:role:router"'],
  ['a quote in such a name', 'URI:"http://x\\", URI:push:role:router"'],
  ['a prefix that is not the beginning', 'URI:x-push:role:router'],
  ['no name', 'URI:push:role:, URI:push:edge:, URI:push:principal:'],
  ['a name with other letters', 'URI:push:edge:a/b, URI:push:principal:a%20b'],
])('%s says nothing', (_what, text) => {
  expect(identityOfAltName(text)).toEqual({ roles: [], edgeNames: [], principal: undefined })
})

test('two principals are none: nobody is two people', () => {
  expect(identityOfAltName('URI:push:principal:a, URI:push:principal:b').principal).toBeUndefined()
  expect(identityOfAltName('URI:push:principal:a, URI:push:principal:a').principal).toBe('a')
})

test('the name of an edge is its id without the suffix of its start', () => {
  expect(edgeNameOf('zone-a-edge-1-k3v9x2qa')).toBe('zone-a-edge-1')
  expect(edgeNameOf('edge')).toBe('edge')
})
