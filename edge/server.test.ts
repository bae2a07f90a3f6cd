import { expect } from 'vitest'
import { OutcomeKind } from '../gen/push/internal/v1/edge.ts'
import { deliveryOf } from './testing/deliveries.ts'
import { test } from './testing/edge-fixture.ts'

const { WRITTEN, ACKNOWLEDGED } = OutcomeKind

test('a message goes from a router through the edge to a device, and its answer back', async ({ edge }) => {
  await edge.start()
  const device = await edge.open('dev:tv-1/anna')
  const router = edge.router()
  const delivery = deliveryOf({ data: { text: 'hello' } }, { sessionId: device.sessionId, accountId: 'anna' })
  router.send({ deliveries: [delivery] })
  expect(await device.next('message')).toMatchObject({ id: delivery.messageId, data: { text: 'hello' }, class: 'USER' })
  expect(await router.kinds(delivery.deliveryId)).toEqual([WRITTEN])
  device.send({ type: 'ack', ids: [delivery.messageId] })
  expect(await router.kinds(delivery.deliveryId, 2)).toEqual([WRITTEN, ACKNOWLEDGED])
  expect(router.outcomes[1]).toMatchObject({ sessionId: device.sessionId, final: false })
  expect(edge.plane.rows).toMatchObject([{ deviceId: 'tv-1', accountId: 'anna', sessionId: device.sessionId }])
})
