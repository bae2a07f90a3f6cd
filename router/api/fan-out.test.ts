import { expect, test } from 'vitest'
import { Message } from '../../gen/push/v1/message.ts'
import { createFanOutCheck } from './fan-out.ts'
import { checkMessage } from './message-check.ts'

const to = ($case: 'deviceId' | 'accountId', value: string) => checkMessage(Message.fromPartial({ target: { $case, value } }))

/** A check for a registry with accounts of so many devices, and what it was asked for. */
function open(counts: Record<string, number>, fanOutMax: number | undefined) {
  const asked: string[] = []
  const check = createFanOutCheck(
    {
      async accountDevices(accountId, _page, size = 0) {
        asked.push(`${accountId} ${size}`)
        return { deviceIds: Array.from({ length: Math.min(size, counts[accountId] ?? 0) }, (_, i) => `d${i}`), nextPageToken: '' }
      },
    },
    { fanOutMax: () => fanOutMax },
  )
  return { check, asked }
}

test('an account with as many devices as the publisher may reach is fine, one more is too many', async () => {
  const { check, asked } = open({ couple: 2, family: 3 }, 2)
  await check('billing', to('accountId', 'couple'))
  await expect(check('billing', to('accountId', 'family'))).rejects.toMatchObject({
    reason: 'TOO_MANY_TARGETS',
    message: 'account family has more than the 2 devices that billing may reach at once',
  })
  expect(asked).toEqual(['couple 3', 'family 3'])
})

test('devices, and publishers without a bound, cost no question', async () => {
  const bounded = open({}, 1)
  expect(bounded.check('billing', to('deviceId', 'tv-1'))).toBeUndefined()
  const free = open({ family: 500 }, undefined)
  expect(free.check('billing', to('accountId', 'family'))).toBeUndefined()
  expect([...bounded.asked, ...free.asked]).toEqual([])
})
