import type {
  GetDeviceRequest,
  GetDeviceResponse,
  ListAccountDevicesRequest,
  ListAccountDevicesResponse,
} from '../../gen/push/v1/devices.ts'
import { DeviceServiceDefinition } from '../../gen/push/v1/devices.ts'
import type {
  AbortEdgeDrainRequest,
  AbortEdgeDrainResponse,
  DisconnectDeviceRequest,
  DisconnectDeviceResponse,
  DrainEdgeRequest,
  DrainEdgeResponse,
  GetDeadLetterRequest,
  GetDeadLetterResponse,
  GetEdgeDrainRequest,
  GetEdgeDrainResponse,
  ListDeadLettersRequest,
  ListDeadLettersResponse,
  ListEdgesRequest,
  ListEdgesResponse,
  PurgeDeadLettersRequest,
  PurgeDeadLettersResponse,
  ReplayDeadLettersRequest,
  ReplayDeadLettersResponse,
} from '../../gen/push/v1/operations.ts'
import { OperationsServiceDefinition } from '../../gen/push/v1/operations.ts'
import type {
  CancelMessageRequest,
  CancelMessageResponse,
  DeviceOutcome,
  GetMessageRequest,
  GetMessageResponse,
  PublishRequest,
  PublishResponse,
  WatchMessageRequest,
} from '../../gen/push/v1/publish.ts'
import { PublishServiceDefinition } from '../../gen/push/v1/publish.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import { type GrpcServerOptions, serveGrpc } from '../../service-kit/grpc-server.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'

type Answer<Request, Response> = (request: Request) => Response | Promise<Response>

/** What the service answers; a call without an answer here is NOT_IMPLEMENTED. */
export interface Answers {
  publish?: Answer<PublishRequest, PublishResponse>
  getMessage?: Answer<GetMessageRequest, GetMessageResponse>
  /** The n-th watch gets n, from 1 on. */
  watchMessage?: (request: WatchMessageRequest, n: number, signal: AbortSignal) => AsyncIterable<DeviceOutcome>
  /** How many devices the watched message is for. */
  deviceCount?: number
  cancelMessage?: Answer<CancelMessageRequest, CancelMessageResponse>
  getDevice?: Answer<GetDeviceRequest, GetDeviceResponse>
  listAccountDevices?: Answer<ListAccountDevicesRequest, ListAccountDevicesResponse>
  disconnectDevice?: Answer<DisconnectDeviceRequest, DisconnectDeviceResponse>
  listEdges?: Answer<ListEdgesRequest, ListEdgesResponse>
  drainEdge?: Answer<DrainEdgeRequest, DrainEdgeResponse>
  getEdgeDrain?: Answer<GetEdgeDrainRequest, GetEdgeDrainResponse>
  abortEdgeDrain?: Answer<AbortEdgeDrainRequest, AbortEdgeDrainResponse>
  listDeadLetters?: Answer<ListDeadLettersRequest, ListDeadLettersResponse>
  getDeadLetter?: Answer<GetDeadLetterRequest, GetDeadLetterResponse>
  replayDeadLetters?: Answer<ReplayDeadLettersRequest, ReplayDeadLettersResponse>
  purgeDeadLetters?: Answer<PurgeDeadLettersRequest, PurgeDeadLettersResponse>
}

/** A service with the public contracts whose answers a test gives. */
export async function startTestService(answers: Answers, security: Pick<GrpcServerOptions, 'tls' | 'tokens' | 'roles'> = {}) {
  const published: PublishRequest[] = []
  let watchCount = 0
  const notYet = async (): Promise<never> => {
    throw new PushError('NOT_IMPLEMENTED', 'this service does not do that')
  }
  const server = await serveGrpc({
    address: '127.0.0.1:0',
    ...security,
    log: silentLog,
    metrics: createMetrics(),
    clock: systemClock,
    services(added) {
      added.add(PublishServiceDefinition, {
        async publish(request) {
          published.push(request)
          return answers.publish ? answers.publish(request) : notYet()
        },
        // biome-ignore lint/correctness/useYield: it only fails
        async *publishStream() {
          return notYet()
        },
        getMessage: async (request) => (answers.getMessage ? answers.getMessage(request) : notYet()),
        async *watchMessage(request, { signal }) {
          if (!answers.watchMessage) return notYet()
          const deviceCount = answers.deviceCount ?? 0
          for await (const device of answers.watchMessage(request, ++watchCount, signal)) yield { device, deviceCount }
        },
        cancelMessage: async (request) => (answers.cancelMessage ? answers.cancelMessage(request) : notYet()),
      })
      added.add(DeviceServiceDefinition, {
        getDevice: async (request) => (answers.getDevice ? answers.getDevice(request) : notYet()),
        listAccountDevices: async (request) => (answers.listAccountDevices ? answers.listAccountDevices(request) : notYet()),
      })
      added.add(OperationsServiceDefinition, {
        listEdges: async (request) => (answers.listEdges ? answers.listEdges(request) : notYet()),
        disconnectDevice: async (request) => (answers.disconnectDevice ? answers.disconnectDevice(request) : notYet()),
        drainEdge: async (request) => (answers.drainEdge ? answers.drainEdge(request) : notYet()),
        getEdgeDrain: async (request) => (answers.getEdgeDrain ? answers.getEdgeDrain(request) : notYet()),
        abortEdgeDrain: async (request) => (answers.abortEdgeDrain ? answers.abortEdgeDrain(request) : notYet()),
        listDeadLetters: async (request) => (answers.listDeadLetters ? answers.listDeadLetters(request) : notYet()),
        getDeadLetter: async (request) => (answers.getDeadLetter ? answers.getDeadLetter(request) : notYet()),
        replayDeadLetters: async (request) => (answers.replayDeadLetters ? answers.replayDeadLetters(request) : notYet()),
        purgeDeadLetters: async (request) => (answers.purgeDeadLetters ? answers.purgeDeadLetters(request) : notYet()),
      })
    },
  })
  return { address: server.address, published, close: () => server.drain(0) }
}
