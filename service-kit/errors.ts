// The error map, from both ends: what services throw, what it becomes on the wire, what clients read.

export { CallError, type CallFailure, callErrorOf, errorDetailsMiddleware } from './error-client.ts'
export { errorDetailsLimitBytes, errorMessageLimitBytes } from './error-details.ts'
export { errorMiddleware, toPushError, toServerError } from './error-server.ts'
export { type FieldViolation, invalidField, PushError, type PushErrorOptions, type Reason, statusByReason } from './push-error.ts'
