import type { Delivery } from '../../gen/push/internal/v1/edge.ts'
import type { MessageFrame } from '../../gen/push/v1/device.ts'
import { ConfirmLevel, MessageClass, Priority } from '../../gen/push/v1/message.ts'
import { timestampFromMicros } from '../../service-kit/time.ts'

let deliveryCount = 0

/** The delivery that a message frame comes from; what is not given is plausible. */
export function deliveryOf(frame: Partial<MessageFrame>, more: Partial<Delivery> = {}): Delivery {
  const { data, data_base64: base64, signature } = frame
  const json = data === undefined ? '' : JSON.stringify(data)
  deliveryCount++
  return {
    deliveryId: deliveryCount,
    deviceId: 'tv-1',
    sessionId: 'session',
    messageId: frame.id ?? `message-${deliveryCount}`,
    messageClass: MessageClass[(frame.class ?? 'USER') as keyof typeof MessageClass],
    name: frame.name ?? '',
    payload: base64 === undefined ? Buffer.from(json) : Buffer.from(base64, 'base64'),
    contentType: frame.content_type ?? 'application/json',
    priority: Priority[(frame.priority ?? 'NORMAL') as keyof typeof Priority],
    acceptTime: frame.accept_time ?? 1_800_000_000_000_000 + deliveryCount,
    expireTime: frame.expire_time ?? 1_800_003_600_000_000,
    remainingTime: 3_600_000_000,
    accountId: '',
    target: frame.target ?? 'device/tv-1',
    collapseKey: frame.collapse_key ?? '',
    principal: 'publisher',
    confirm: ConfirmLevel[(frame.confirm ?? 'ACKNOWLEDGED') as keyof typeof ConfirmLevel],
    redelivered: frame.redelivered ?? false,
    traceparent: frame.traceparent ?? '',
    signature:
      signature === undefined
        ? undefined
        : {
            keyId: signature.key_id,
            nonce: Buffer.from(signature.nonce, 'base64'),
            notAfter: timestampFromMicros(signature.not_after),
            value: Buffer.from(signature.value, 'base64'),
          },
    ...more,
  }
}
