import { latencyBucketsSeconds, type Metrics } from '../service-kit/metrics.ts'

/** Everything that an edge counts; made once. */
export type EdgeMetrics = ReturnType<typeof createEdgeMetrics>

/** Labels are closed sets: nothing that a device or publisher chooses becomes one. */
export function createEdgeMetrics(metrics: Metrics) {
  return {
    sessions: metrics.gauge('push_edge_sessions', 'Sessions by state', ['state']),
    sessionsAdmitted: metrics.counter('push_edge_sessions_admitted_total', 'Devices let in, by how their frames travel', [
      'protocol',
    ]),
    closes: metrics.counter('push_edge_session_ends_total', 'Sessions that ended, by close code and by who ended them', [
      'code',
      'by',
    ]),
    refusals: metrics.counter('push_edge_refusals_total', 'Connections that were not let in, by reason', ['reason']),
    handshakes: metrics.gauge('push_edge_handshakes', 'Connections between request and session'),
    lingering: metrics.gauge('push_edge_refused_sockets', 'Upgraded only to be told why they are refused, not yet closed'),

    limits: metrics.gauge('push_edge_limit', 'Limits of the device port that are in force, by the name of their setting', [
      'limit',
    ]),
    addresses: metrics.gauge('push_edge_addresses', 'Addresses that are counted: with connections, or only remembered', [
      'state',
    ]),
    addressesForgotten: metrics.counter(
      'push_edge_addresses_forgotten_total',
      'Addresses forgotten because too many were to be remembered',
    ),
    addressFailures: metrics.counter(
      'push_edge_address_failures_total',
      'Connections that ended without having been authenticated, by their own fault',
    ),
    refusedConnections: metrics.gauge(
      'push_edge_refused_connections',
      'Connections over a limit that may still say what they want',
    ),
    cutConnections: metrics.counter(
      'push_edge_cut_connections_total',
      'Connections over a limit that were ended without having been heard, by reason',
      ['reason'],
    ),
    proxyHeaders: metrics.counter('push_edge_proxy_headers_total', 'PROXY headers of trusted addresses, by what they were', [
      'result',
    ]),
    connections: metrics.gauge('push_edge_connections', 'Connections at the device port, of every kind'),
    waiting: metrics.gauge('push_edge_waiting_connections', 'Connections that have not shown yet what they are'),
    acceptErrors: metrics.counter('push_edge_accept_errors_total', 'Connections that the system could not hand over'),
    listenerOpen: metrics.gauge('push_edge_listener_open', '0 while the device port is closed because the edge is nearly full'),
    drainState: metrics.gauge('push_edge_drain_state', '1 at the state that the drain of this edge is in', ['state']),
    drainTold: metrics.counter('push_edge_drain_told_total', 'Sessions asked to leave by drains'),
    drainRate: metrics.gauge('push_edge_drain_rate', 'Sessions that the drain asks to leave a second'),

    outboxBytes: metrics.gauge('push_edge_outbox_bytes', 'Frames that wait in all outboxes, in bytes'),
    outboxAged: metrics.counter(
      'push_edge_outbox_aged_total',
      'Messages given back because they had waited too long for their device',
    ),
    rateExempt: metrics.counter(
      'push_edge_rate_exempt_total',
      'Deliveries of HIGH and RECOVERY beyond the rate of their device; others are counted as outcome rate_limited',
    ),
    finalAnswers: metrics.gauge('push_edge_final_answers_remembered', 'Final answers that repeats would be given'),
    outcomes: metrics.counter('push_edge_outcomes_total', 'Outcomes of deliveries', ['kind']),
    joined: metrics.counter(
      'push_edge_deliveries_joined_total',
      'Deliveries of a message that was here already, by what they met',
      ['met'],
    ),
    badItems: metrics.counter('push_edge_bad_items_total', 'Deliveries, pokes and closes that could not be understood', ['item']),
    answerRequests: metrics.gauge('push_edge_answer_requests', 'Requests with answers that are being read or judged'),
    answers: metrics.counter('push_edge_device_answers_total', 'Answers of devices, by what became of them', ['became']),
    awaitedResults: metrics.gauge('push_edge_awaited_results', 'Acknowledged messages whose result is still to come'),
    awaitedForgotten: metrics.counter(
      'push_edge_awaited_results_forgotten_total',
      'Acknowledged messages let go before their result, because too many waited',
    ),
    lateAnswers: metrics.counter(
      'push_edge_late_answers_total',
      'Answers that no stream waited for, by what became of their report',
      ['result'],
    ),
    lateAnswersQueued: metrics.gauge('push_edge_late_answers_queued', 'Answers that are still to be reported to a router'),
    lateAnswerFailures: metrics.counter(
      'push_edge_late_answer_call_failures_total',
      'Calls to report answers that failed and are repeated',
    ),

    pokes: metrics.counter('push_edge_pokes_total', 'Pokes of routers, by how they were answered', ['result']),
    flushes: metrics.counter('push_edge_flushes_total', 'Flushes of inboxes, by how they ended', ['result']),
    flushesActive: metrics.gauge('push_edge_flushes_active', 'Flushes under way'),
    flushesQueued: metrics.gauge('push_edge_flushes_queued', 'Sessions that wait for their turn to flush'),
    flushCallFailures: metrics.counter('push_edge_flush_call_failures_total', 'Calls to flush that failed and are repeated'),
    beltFlushFound: metrics.counter(
      'push_edge_belt_flush_found_total',
      'Messages found by the look that should find nothing; each is a flush that was not asked for in time',
    ),

    rechecks: metrics.counter('push_edge_rechecked_sessions_total', 'Sessions looked up after a lapse, by what was found', [
      'found',
    ]),
    recheckQueued: metrics.gauge('push_edge_recheck_queued', 'Devices that are still to be looked up after a lapse'),
    recheckFailures: metrics.counter('push_edge_recheck_failures_total', 'Look-ups after a lapse that failed and are repeated'),
    controlDropped: metrics.counter(
      'push_edge_control_frames_dropped_total',
      'Pongs and errors not sent because the device does not read',
      ['type'],
    ),
    identityVerdicts: metrics.counter('push_edge_identity_verdicts_total', 'Credentials that were judged, by the verdict', [
      'verdict',
    ]),
    certificates: metrics.counter('push_edge_client_certificates_total', 'Client certificates that were judged, by the verdict', [
      'verdict',
    ]),
    tlsFailures: metrics.counter('push_edge_tls_failures_total', 'Connections whose TLS handshake failed'),
    jwksFetches: metrics.counter('push_edge_jwks_fetches_total', "Fetches of the token issuer's keys, by how they ended", [
      'result',
    ]),
    jwksLookups: metrics.counter('push_edge_jwks_lookups_total', 'Keys that tokens named, by what was found', ['result']),
    jwksKeys: metrics.gauge('push_edge_jwks_keys', 'Keys of the token issuer that are in force'),
    jwksFetchTime: metrics.gauge(
      'push_edge_jwks_fetch_time_seconds',
      "When the token issuer's keys last came, in seconds since the epoch",
    ),
    credentialRefreshes: metrics.counter(
      'push_edge_credential_refreshes_total',
      'New credentials shown by open sessions, by what became of them',
      ['result'],
    ),
    frameLimitEnds: metrics.counter(
      'push_edge_frame_limit_ends_total',
      'Sessions ended because their device sent more than it may, or did not read its replies',
      ['limit'],
    ),
    badFrames: metrics.counter('push_edge_bad_frames_total', 'Frames of devices that could not be understood', ['reason']),
    streams: metrics.gauge('push_edge_deliver_streams', 'Open streams of routers'),
    slowStreams: metrics.counter('push_edge_slow_streams_total', 'Streams ended because their router did not take its answers'),

    registerSeconds: metrics.histogram(
      'push_edge_register_seconds',
      'From session to its row, by how it ended',
      latencyBucketsSeconds,
      ['result'],
    ),
    registerQueued: metrics.gauge('push_edge_register_queued', 'Sessions that wait for their turn to register'),
    registerRetries: metrics.counter('push_edge_register_retries_total', 'Registrations that were repeated'),
    registerDropped: metrics.counter('push_edge_register_dropped_total', 'Registrations dropped because the socket had gone'),
    unregisterQueued: metrics.gauge('push_edge_unregister_queued', 'Sessions whose rows are still to be removed'),
    unregisterFailures: metrics.counter(
      'push_edge_unregister_failures_total',
      'Calls to remove rows that failed and are repeated',
    ),
    unregisterGivenUp: metrics.counter(
      'push_edge_unregister_given_up_total',
      'Sessions whose rows were left to their time to live',
      ['reason'],
    ),
    ghosts: metrics.counter('push_edge_ghost_rows_total', 'Rows that named a session this edge does not have'),
    duplicateIdentities: metrics.counter(
      'push_edge_duplicate_identities_total',
      'Sessions closed with 4006: their device changed between sessions too often for one device',
    ),
    replacedReports: metrics.counter('push_edge_replaced_reports_total', 'Replaced sessions reported, by how it ended', [
      'result',
    ]),
    replacedActive: metrics.gauge('push_edge_replaced_reports_active', 'Replaced sessions that are being reported'),

    leaseRenewals: metrics.counter('push_edge_lease_renewals_total', 'Attempts to renew the lease', ['result']),
    leaseLapses: metrics.counter('push_edge_lease_lapses_total', 'Times that a registry had seen the lease run out'),
    clockOffsetSeconds: metrics.gauge('push_edge_clock_offset_seconds', 'How far the registry clock is ahead of the clock here'),
    clockSkewed: metrics.counter('push_edge_clock_skewed_total', 'Renewals that found the clocks more than 2 s apart'),

    stalls: metrics.counter('push_edge_stalls_total', 'Times that the event loop stood still for more than 1 s'),
    stalledSeconds: metrics.counter('push_edge_stalled_seconds_total', 'How long it stood still in all'),
  }
}
