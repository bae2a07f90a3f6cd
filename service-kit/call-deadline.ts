import { ServerInterceptingCall, type ServerInterceptor } from '@grpc/grpc-js'
import type { CallContext } from 'nice-grpc-common'

/** Where the interceptor leaves the deadline for handlers; whatever a caller sends under this name is overwritten. */
const deadlineKey = 'push-call-deadline-ms'

/**
 * Lets handlers see the deadline that their caller set. The server itself ends a call at its deadline, but takes `grpc-timeout` out of the
 * metadata, and a handler that waits for something must answer before that.
 */
export const deadlineInterceptor: ServerInterceptor = (_method, call) =>
  new ServerInterceptingCall(call, {
    start(next) {
      next({
        onReceiveMetadata(metadata, forward) {
          metadata.remove(deadlineKey)
          const deadline = Number(call.getDeadline())
          if (Number.isFinite(deadline)) metadata.set(deadlineKey, String(deadline))
          forward(metadata)
        },
      })
    },
  })

/** Milliseconds until the call's deadline by the wall clock `nowMs`, at least 0; undefined when its caller set none. */
export function remainingCallMs(context: Pick<CallContext, 'metadata'>, nowMs: number): number | undefined {
  const text = context.metadata.get(deadlineKey)
  return text === undefined ? undefined : Math.max(0, Number(text) - nowMs)
}
