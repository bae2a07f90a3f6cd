import { Status } from 'nice-grpc-common'
import { expect, test } from 'vitest'
import { type CallFailure, PushError, type Reason, statusByReason } from '../service-kit/errors.ts'
import { exitCodeOfClose, exitCodeOfFailure, exitCodesHelp } from './exit-codes.ts'

const plain = { reason: undefined, message: '', metadata: {}, violations: [], retryAfterMs: undefined }
const ofReason = (reason: Reason) => exitCodeOfFailure(new PushError(reason, '') satisfies CallFailure)
const reasonsOf = (status: Status) =>
  (Object.keys(statusByReason) as Reason[]).filter((reason) => statusByReason[reason] === status)

test('what the caller did wrong ends with 2', () => {
  expect(reasonsOf(Status.INVALID_ARGUMENT).map(ofReason)).toEqual([2, 2, 2, 2, 2])
  expect(
    ['NOT_IMPLEMENTED', 'TOO_MANY_TARGETS', 'MESSAGE_UNKNOWN', 'EDGE_UNKNOWN', 'DEAD_LETTER_UNKNOWN'].map((reason) =>
      ofReason(reason as Reason),
    ),
  ).toEqual([2, 2, 2, 2, 2])
})

test('who may not ends with 3, a device that is not there with 4, a passed deadline with 6', () => {
  expect((['UNAUTHENTICATED', 'PERMISSION_MISSING', 'CLASS_FORBIDDEN'] as const).map(ofReason)).toEqual([3, 3, 3])
  expect(ofReason('DEVICE_UNKNOWN')).toBe(4)
  expect(ofReason('DEADLINE_PASSED')).toBe(6)
})

test('what the service cannot do now ends with 8', () => {
  expect(new Set(reasonsOf(Status.UNAVAILABLE).map(ofReason))).toEqual(new Set([8]))
  expect((['RATE_EXCEEDED', 'BACKLOG_FULL', 'INTERNAL', 'EDGE_RESTARTED'] as const).map(ofReason)).toEqual([8, 8, 8, 8])
})

test('a failure without a reason of ours goes by its status, and an unknown one counts as unavailable', () => {
  const ofStatus = (status: Status) => exitCodeOfFailure({ ...plain, status })
  expect([Status.INVALID_ARGUMENT, Status.UNIMPLEMENTED, Status.NOT_FOUND].map(ofStatus)).toEqual([2, 2, 2])
  expect([Status.UNAUTHENTICATED, Status.PERMISSION_DENIED].map(ofStatus)).toEqual([3, 3])
  expect(ofStatus(Status.DEADLINE_EXCEEDED)).toBe(6)
  expect([Status.UNAVAILABLE, Status.UNKNOWN, Status.DATA_LOSS].map(ofStatus)).toEqual([8, 8, 8])
})

test('a device that the server sent away: 3 for its credential or by an operator, else 8', () => {
  expect([4500, 4501, 4502].map(exitCodeOfClose)).toEqual([3, 3, 8])
})

test('the help names every code', () => {
  for (const code of [0, 1, 2, 3, 4, 5, 6, 7, 8, 130]) expect(exitCodesHelp).toMatch(new RegExp(`^ {2}${code} `, 'm'))
})
