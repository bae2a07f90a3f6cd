import type {
  LookupRequest,
  LookupResponse,
  RegisterRequest,
  RegisterResult,
  RegistryServiceImplementation,
  RenewEdgeRequest,
  SessionKey,
  SessionRegistration,
  SessionRow,
} from '../../gen/push/internal/v1/registry.ts'
import { EdgeLeaseState, RegistryServiceDefinition } from '../../gen/push/internal/v1/registry.ts'
import type { FlushInboxRequest, FlushInboxResponse, LateAnswer, SessionReplaced } from '../../gen/push/internal/v1/uplink.ts'
import { FlushResult, FlushStop, ReportResult, UplinkServiceDefinition } from '../../gen/push/internal/v1/uplink.ts'
import { systemClock } from '../../service-kit/clock.ts'
import { PushError } from '../../service-kit/errors.ts'
import { type GrpcServer, serveGrpc } from '../../service-kit/grpc-server.ts'
import { silentLog } from '../../service-kit/log.ts'
import { createMetrics } from '../../service-kit/metrics.ts'

/** A registry and a router in one server, whose answers a test decides. */
export interface FakePlane {
  readonly address: string
  /** Rows that are there now, oldest first. */
  readonly rows: SessionRow[]
  readonly registers: SessionRegistration[]
  readonly registerCalls: RegisterRequest[]
  readonly unregistered: SessionKey[]
  readonly renewals: RenewEdgeRequest[]
  readonly reports: SessionReplaced[]
  readonly lateAnswers: LateAnswer[]
  readonly flushes: FlushInboxRequest[]
  readonly lookups: LookupRequest[]
  /** What Register and Lookup say of every inbox. */
  inboxUntil: number
  /** Decides one registration; the default inserts a row and names the older ones as replaced. */
  onRegister: (session: SessionRegistration, insert: () => RegisterResult['result']) => Promise<RegisterResult['result']>
  onUnregister: () => Promise<void>
  onRenew: () => Promise<{ registryTime?: number; lapsed?: boolean }>
  onReport: (item: SessionReplaced) => Promise<ReportResult>
  onLateAnswer: (item: LateAnswer) => Promise<ReportResult>
  /** Answers one flush; the default reads an empty inbox. */
  onFlush: (request: FlushInboxRequest) => AsyncIterable<FlushInboxResponse>
  /** Answers a look-up; the default shows the rows that are there, of live edges. */
  onLookup: (request: LookupRequest, look: () => LookupResponse) => Promise<LookupResponse>
  close(): Promise<void>
}

/** One message of a flush. */
export function flushResponse(result: FlushResult, more: Partial<FlushInboxResponse> = {}): FlushInboxResponse {
  return { result, stop: FlushStop.UNSPECIFIED, settledCount: 0, ...more }
}

export async function serveFakePlane(): Promise<FakePlane> {
  let epoch = 1_000
  const state = {
    rows: [] as SessionRow[],
    registers: [] as SessionRegistration[],
    registerCalls: [] as RegisterRequest[],
    unregistered: [] as SessionKey[],
    renewals: [] as RenewEdgeRequest[],
    reports: [] as SessionReplaced[],
    lateAnswers: [] as LateAnswer[],
    flushes: [] as FlushInboxRequest[],
    lookups: [] as LookupRequest[],
    inboxUntil: 0,
    onRegister: async (_session: SessionRegistration, insert: () => RegisterResult['result']) => insert(),
    onUnregister: async () => {},
    onRenew: async (): Promise<{ registryTime?: number; lapsed?: boolean }> => ({}),
    onReport: async (_item: SessionReplaced): Promise<ReportResult> => ReportResult.DONE,
    onLateAnswer: async (_item: LateAnswer): Promise<ReportResult> => ReportResult.DONE,
    async *onFlush(_request: FlushInboxRequest): AsyncGenerator<FlushInboxResponse> {
      yield flushResponse(FlushResult.READING)
      yield flushResponse(FlushResult.EMPTY)
    },
    onLookup: async (_request: LookupRequest, look: () => LookupResponse): Promise<LookupResponse> => look(),
  }

  const insert = (request: RegisterRequest, session: SessionRegistration): RegisterResult['result'] => {
    const { deviceId, sessionId, accountId, protocol, connectedTime } = session
    const { edgeId, edgeAddress } = request
    epoch++
    const replacedSessions = state.rows.filter((row) => row.deviceId === deviceId && row.sessionId !== sessionId)
    state.rows.push({ deviceId, epoch, sessionId, edgeId, edgeAddress, accountId, protocol, connectedTime })
    return { $case: 'registered', value: { epoch, replacedSessions, inboxUntil: state.inboxUntil } }
  }

  const look = ({ deviceIds }: LookupRequest): LookupResponse => ({
    registryTime: systemClock.nowMicros(),
    devices: deviceIds.map((deviceId) => ({
      deviceId,
      routes: state.rows
        .filter((row) => row.deviceId === deviceId)
        .toReversed()
        .map((row) => ({ row, edgeState: EdgeLeaseState.LIVE })),
      more: false,
      inboxUntil: state.inboxUntil,
      error: undefined,
    })),
  })

  const notHere = async () => {
    throw new PushError('NOT_IMPLEMENTED', 'not part of this test')
  }
  const registry: RegistryServiceImplementation = {
    async register(request) {
      state.registerCalls.push(request)
      const results = await Promise.all(
        request.sessions.map(async (session) => {
          state.registers.push(session)
          return { result: await state.onRegister(session, () => insert(request, session)) }
        }),
      )
      return { results, registryTime: systemClock.nowMicros() }
    },
    async unregister(request) {
      await state.onUnregister()
      state.unregistered.push(...request.sessions)
      for (const { sessionId, epoch: of } of request.sessions) {
        state.rows = state.rows.filter((row) => row.sessionId !== sessionId || (of !== 0 && row.epoch !== of))
      }
      return {}
    },
    async renewEdge(request) {
      state.renewals.push(request)
      return { registryTime: systemClock.nowMicros(), lapsed: false, ...(await state.onRenew()) }
    },
    async lookup(request) {
      state.lookups.push(request)
      return state.onLookup(request, () => look(request))
    },
    lookupAccount: notHere,
    forgetAccountDevices: notHere,
    listEdges: notHere,
    // biome-ignore lint/correctness/useYield: nobody watches here.
    async *watchEdges() {
      await notHere()
    },
  }

  const server: GrpcServer = await serveGrpc({
    address: '127.0.0.1:0',
    services(added) {
      added.add(RegistryServiceDefinition, registry)
      added.add(UplinkServiceDefinition, {
        async report(request) {
          const results = request.items.map(async ({ item }) => {
            if (item?.$case === 'lateAnswer') {
              state.lateAnswers.push(item.value)
              return state.onLateAnswer(item.value)
            }
            if (item?.$case !== 'sessionReplaced') return ReportResult.NOT_IMPLEMENTED
            state.reports.push(item.value)
            return state.onReport(item.value)
          })
          return { results: await Promise.all(results) }
        },
        async *flushInbox(request) {
          state.flushes.push(request)
          yield* state.onFlush(request)
        },
      })
    },
    log: silentLog,
    metrics: createMetrics(),
    clock: systemClock,
  })

  return Object.assign(state, { address: server.address, close: () => server.drain(500) })
}
