/** Where one node stands in its cluster. */
export interface CassandraPlace {
  readonly clusterName: string
  /** Of all nodes; each is a seed for the others. */
  readonly hosts: readonly string[]
  /** Of this node in `hosts`. */
  readonly index: number
  readonly nativePort: number
  readonly storagePort: number
  /** Clients come over TLS and log in; the certificate with its key lies in `keystore.pem`. */
  readonly secured?: boolean
}

/** A small node that starts fast: no bootstrap, small caches and buffers. */
export function cassandraYaml(place: CassandraPlace): string {
  const host = place.hosts[place.index] ?? '127.0.0.1'
  const settings: Record<string, string | number | boolean> = {
    cluster_name: place.clusterName,
    partitioner: 'org.apache.cassandra.dht.Murmur3Partitioner',
    num_tokens: 1,
    initial_token: `"${evenToken(place.index, place.hosts.length)}"`,
    auto_bootstrap: false,
    auto_snapshot: false,
    commitlog_sync: 'periodic',
    commitlog_sync_period: '1000ms',
    endpoint_snitch: 'SimpleSnitch',
    seed_provider: `[{class_name: org.apache.cassandra.locator.SimpleSeedProvider, parameters: [{seeds: "${place.hosts.join(',')}"}]}]`,
    listen_address: host,
    rpc_address: host,
    storage_port: place.storagePort,
    native_transport_port: place.nativePort,
    // Below the drivers' own time limits, so that it is the server that says a request has failed.
    read_request_timeout: '1000ms',
    write_request_timeout: '1000ms',
    memtable_heap_space: '48MiB',
    memtable_offheap_space: '32MiB',
    file_cache_size: '16MiB',
    networking_cache_size: '16MiB',
    key_cache_size: '4MiB',
    counter_cache_size: '0MiB',
    commitlog_segment_size: '8MiB',
    commitlog_total_space: '64MiB',
    concurrent_reads: 16,
    concurrent_writes: 16,
    native_transport_max_threads: 128,
    ...(place.secured && securitySettings),
  }
  return Object.entries(settings)
    .map(([key, value]) => `${key}: ${value}\n`)
    .join('')
}

const securitySettings = {
  authenticator: 'PasswordAuthenticator',
  client_encryption_options:
    '{enabled: true, optional: false, require_client_auth: false, ' +
    'ssl_context_factory: {class_name: org.apache.cassandra.security.PEMBasedSslContextFactory}, keystore: keystore.pem}',
}

/** The ring of tokens divided evenly, with 0 for the only node of one. */
function evenToken(index: number, count: number): bigint {
  const ring = 2n ** 64n
  return (ring * BigInt(index)) / BigInt(count) - (count > 1 ? ring / 3n : 0n)
}

const pattern = '%-5level %d{HH:mm:ss.SSS} [%thread] %logger{0} %msg%n'

/** Everything to stdout, which the launcher sends to the node's log file. */
export const cassandraLogging = `<configuration>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender"><encoder><pattern>${pattern}</pattern></encoder></appender>
  <root level="INFO"><appender-ref ref="STDOUT"/></root>
</configuration>
`

// What Cassandra reaches into the JDK for; from Java 17 on that has to be allowed module by module.
const exportedPackages = [
  'java.base/jdk.internal.misc',
  'java.management.rmi/com.sun.jmx.remote.internal.rmi',
  'java.rmi/sun.rmi.registry',
  'java.rmi/sun.rmi.server',
  'java.sql/java.sql',
  'java.base/java.lang.ref',
  'jdk.unsupported/sun.misc',
  'jdk.compiler/com.sun.tools.javac.file',
  'jdk.attach/sun.tools.attach',
]
const openedPackages = [
  'java.base/java.lang.module',
  'java.base/jdk.internal.loader',
  'java.base/jdk.internal.ref',
  'java.base/jdk.internal.reflect',
  'java.base/jdk.internal.math',
  'java.base/jdk.internal.module',
  'java.base/jdk.internal.util.jar',
  'java.base/sun.nio.ch',
  'java.base/java.io',
  'java.base/java.lang.reflect',
  'java.base/java.lang',
  'java.base/java.util',
  'jdk.management/com.sun.management.internal',
  'jdk.compiler/com.sun.tools.javac',
]

export const cassandraJvmArgs: readonly string[] = [
  '-Xmx256m',
  '-XX:+UseSerialGC',
  '-XX:TieredStopAtLevel=1',
  '-XX:MaxDirectMemorySize=96m',
  ...exportedPackages.map((name) => `--add-exports=${name}=ALL-UNNAMED`),
  ...openedPackages.map((name) => `--add-opens=${name}=ALL-UNNAMED`),
  '-Xss512k',
  '-Djdk.attach.allowAttachSelf=true',
  '-Djava.net.preferIPv4Stack=true',
  '-Dio.netty.tryReflectionSetAccessible=true',
  '-Dcassandra-foreground=yes',
  // 0 would spin on a node that has no quorum.
  '-Dcassandra.superuser_setup_delay_ms=500',
  '-Dcassandra.skip_wait_for_gossip_to_settle=0',
  '-Dcassandra.ring_delay_ms=1000',
  // A node that was busy or not known yet when others changed the schema asks for it after this long, not after a minute.
  '-Dcassandra.migration_delay_ms=1000',
  '-Dcassandra.schema_pull_interval_ms=1000',
  '-Dcassandra.shutdown_announce_in_ms=0',
]
