import { execFile } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { Kafka, type KafkaConfig, logLevel, Partitioners } from 'kafkajs'
import { fetchJars } from './fetch.ts'
import { freePorts } from './ports.ts'
import { launchNode, type ServerNode, type StartedNode, withPortRetry } from './server-node.ts'

export interface KafkaOptions {
  readonly brokers: 1 | 3
  /** Each broker gets a folder in it; what an earlier start left in those is removed. */
  readonly folder: string
  /** Client port and controller port of each broker, in turn; default: free ones, and others when one is taken meanwhile. */
  readonly ports?: readonly number[]
  /** Has `folder` removed when this process dies without having stopped the brokers. Default false. */
  readonly temporary?: boolean
  /** Clients come over TLS and log in. Default: plain text, and nobody logs in. */
  readonly security?: KafkaSecurity
}

/** A broker's certificate, and who may log in, by SASL PLAIN and SCRAM-SHA-512. */
export interface KafkaSecurity {
  readonly certificate: string
  readonly key: string
  readonly authorities: string
  readonly user: string
  readonly password: string
}

export interface KafkaServers {
  /** `host:port` of each broker. */
  readonly brokers: string[]
  /** The same, joined by commas. */
  readonly bootstrap: string
  readonly nodes: readonly ServerNode[]
  /** The broker that leads the cluster's metadata now, as all that run agree. Rejects when they do not within 10 s. */
  activeController(): Promise<ServerNode>
  /** Kills all brokers. The last of several would wait minutes for a quorum if it were asked politely. */
  close(): Promise<void>
}

const host = '127.0.0.1'
const warmUpTimeoutMs = 60_000
const controllerTimeoutMs = 10_000
const jvmArgs = ['-Xmx256m', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', '-Dorg.slf4j.simpleLogger.defaultLogLevel=warn']

/** Starts Kafka and waits until all brokers are in the cluster and the first group and producer have been served. */
export async function startKafka(options: KafkaOptions): Promise<KafkaServers> {
  const classPath = (await fetchJars('kafka')).join(delimiter)
  if (options.ports !== undefined) return startOn(options.ports, classPath, options)
  return withPortRetry(async () => startOn(await freePorts(options.brokers * 2), classPath, options))
}

async function startOn(ports: readonly number[], classPath: string, options: KafkaOptions): Promise<KafkaServers> {
  if (ports.length !== options.brokers * 2) throw new Error(`${options.brokers} brokers need ${options.brokers * 2} ports`)
  const cluster = planCluster(ports)
  const nodes: StartedNode[] = []
  const close = async () => {
    await Promise.all(nodes.map((node) => node.kill()))
  }
  try {
    const launched = await Promise.allSettled(cluster.members.map((member) => launchBroker(cluster, member, classPath, options)))
    for (const result of launched) if (result.status === 'fulfilled') nodes.push(result.value)
    for (const result of launched) if (result.status === 'rejected') throw result.reason
    await Promise.all(nodes.map((node) => node.ready()))
    const brokers = nodes.map((node) => node.address)
    await warmUp(brokers, options.security)
    return { brokers, bootstrap: brokers.join(','), nodes, activeController: () => findController(nodes, options.folder), close }
  } catch (error) {
    await close()
    throw error
  }
}

interface Member {
  readonly id: number
  readonly clientPort: number
  readonly controllerPort: number
}

interface Cluster {
  /** Of this start alone, so that an answer from someone else's broker is known as such. */
  readonly id: string
  readonly members: readonly Member[]
}

function planCluster(ports: readonly number[]): Cluster {
  const members: Member[] = []
  for (let index = 0; index < ports.length; index += 2) {
    members.push({ id: index / 2 + 1, clientPort: ports[index] ?? 0, controllerPort: ports[index + 1] ?? 0 })
  }
  // Kafka's own tools take an id that begins with a dash for an option.
  return { id: `p${randomBytes(16).toString('base64url').slice(1)}`, members }
}

async function launchBroker(cluster: Cluster, member: Member, classPath: string, options: KafkaOptions): Promise<StartedNode> {
  const name = nameOf(member.id)
  const folder = join(options.folder, name)
  const address = `${host}:${member.clientPort}`
  await rm(folder, { recursive: true, force: true })
  await mkdir(folder, { recursive: true })
  const { security } = options
  await writeFile(join(folder, 'server.properties'), brokerProperties(cluster, member, security))
  const format = ['-cp', classPath, 'kafka.tools.StorageTool', 'format', '-t', cluster.id, '-c', 'server.properties']
  if (security) {
    await writeFile(join(folder, 'keystore.pem'), security.key + security.certificate, { mode: 0o600 })
    await writeFile(join(folder, 'truststore.pem'), security.authorities)
    format.push('--add-scram', `SCRAM-SHA-512=[name=${security.user},password=${security.password}]`)
  }
  await promisify(execFile)('java', [...jvmArgs, ...format], { cwd: folder }).catch(
    (error: { stdout?: string; stderr?: string }) => {
      throw new Error(`the storage of ${name} could not be formatted:\n${error.stderr ?? ''}${error.stdout ?? ''}`, {
        cause: error,
      })
    },
  )
  return launchNode({
    name,
    address,
    folder,
    command: 'java',
    args: [...jvmArgs, '-cp', classPath, 'kafka.Kafka', 'server.properties'],
    ...(options.temporary ? { removeWhenOrphaned: options.folder } : {}),
    probe: () => probeBroker(address, { clusterId: cluster.id, brokerId: member.id }, security),
  })
}

/** Each broker keeps on disk whom it has last voted for or followed. */
async function findController(nodes: readonly StartedNode[], folder: string): Promise<ServerNode> {
  const giveUpAt = Date.now() + controllerTimeoutMs
  for (;;) {
    const states = await Promise.all(
      nodes
        .filter(({ pid }) => pid !== undefined)
        .map(async ({ name }) => {
          const text = await readFile(join(folder, name, 'data/__cluster_metadata-0/quorum-state'), 'utf8').catch(() => '{}')
          return (JSON.parse(text) as { leaderId?: number }).leaderId
        }),
    )
    const [leaderId] = states
    const leader = nodes.find(({ name }) => name === nameOf(leaderId ?? 0))
    if (leader?.pid !== undefined && states.every((state) => state === leaderId)) return leader
    if (Date.now() > giveUpAt) throw new Error(`the brokers do not agree on a controller: ${states.join(', ')}`)
    await delay(100)
  }
}

const nameOf = (brokerId: number) => `kafka-${brokerId}`

function brokerProperties(cluster: Cluster, member: Member, security: KafkaSecurity | undefined): string {
  const clientListener = security ? 'SASL_SSL' : 'PLAINTEXT'
  const memberCount = cluster.members.length
  const inSyncMin = memberCount > 1 ? 2 : 1
  const properties: Record<string, string | number | boolean> = {
    'process.roles': 'broker,controller',
    'node.id': member.id,
    'controller.quorum.voters': cluster.members.map(({ id, controllerPort }) => `${id}@${host}:${controllerPort}`).join(','),
    listeners: `${clientListener}://${host}:${member.clientPort},CONTROLLER://${host}:${member.controllerPort}`,
    'advertised.listeners': `${clientListener}://${host}:${member.clientPort}`,
    'controller.listener.names': 'CONTROLLER',
    'listener.security.protocol.map': 'CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL',
    ...(security && securityProperties(security)),
    // In the broker's working folder.
    'log.dirs': 'data',
    'default.replication.factor': memberCount,
    'min.insync.replicas': inSyncMin,
    'offsets.topic.replication.factor': memberCount,
    // The default of 50 partitions costs seconds at the first group.
    'offsets.topic.num.partitions': 4,
    'transaction.state.log.replication.factor': memberCount,
    'transaction.state.log.min.isr': inSyncMin,
    'transaction.state.log.num.partitions': 4,
    'share.coordinator.state.topic.replication.factor': memberCount,
    'share.coordinator.state.topic.min.isr': inSyncMin,
    'group.initial.rebalance.delay.ms': 0,
    // A mistyped topic is an error, as in production.
    'auto.create.topics.enable': false,
    'broker.session.timeout.ms': 6000,
    'broker.heartbeat.interval.ms': 1000,
  }
  return Object.entries(properties)
    .map(([key, value]) => `${key}=${value}\n`)
    .join('')
}

function securityProperties({ user, password }: KafkaSecurity): Record<string, string> {
  const login = `username="${user}" password="${password}" user_${user}="${password}"`
  return {
    'inter.broker.listener.name': 'SASL_SSL',
    'sasl.enabled.mechanisms': 'PLAIN,SCRAM-SHA-512',
    'sasl.mechanism.inter.broker.protocol': 'PLAIN',
    'listener.name.sasl_ssl.plain.sasl.jaas.config': `org.apache.kafka.common.security.plain.PlainLoginModule required ${login};`,
    'listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config': 'org.apache.kafka.common.security.scram.ScramLoginModule required;',
    'ssl.keystore.type': 'PEM',
    'ssl.keystore.location': 'keystore.pem',
    'ssl.truststore.type': 'PEM',
    'ssl.truststore.location': 'truststore.pem',
  }
}

/** Asks one broker for the cluster's metadata. Throws unless it answers, and, where wanted, as itself and a member. */
export async function probeBroker(
  address: string,
  want?: { readonly clusterId: string; readonly brokerId: number },
  security?: KafkaSecurity,
): Promise<void> {
  const admin = client([address], 0, security).admin()
  try {
    await admin.connect()
    const { clusterId, brokers } = await admin.describeCluster()
    if (want === undefined) return
    if (clusterId !== want.clusterId) throw new Error(`${address} belongs to another cluster, ${clusterId}`)
    if (!brokers.some(({ nodeId }) => nodeId === want.brokerId)) throw new Error(`broker ${want.brokerId} has not joined yet`)
  } finally {
    await admin.disconnect()
  }
}

/** The first group and the first producer id take a fresh cluster half a second and more: have that behind us. */
async function warmUp(brokers: readonly string[], security: KafkaSecurity | undefined): Promise<void> {
  const topic = 'warm-up'
  const groupId = 'warm-up'
  const kafka = client(brokers, 20, security)
  const admin = kafka.admin()
  const producer = kafka.producer({ idempotent: true, createPartitioner: Partitioners.DefaultPartitioner })
  const consumer = kafka.consumer({ groupId, maxWaitTimeInMs: 100 })
  const timer = new AbortController()
  const tooLate = delay(warmUpTimeoutMs, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`Kafka on ${brokers.join(', ')} did not serve its first group within ${warmUpTimeoutMs} ms`)
  })
  tooLate.catch(() => undefined)
  try {
    await Promise.all([admin.connect(), producer.connect(), consumer.connect()])
    await admin.createTopics({ topics: [{ topic, numPartitions: 1 }], waitForLeaders: true })
    await producer.send({ topic, acks: -1, messages: [{ value: 'warm' }] })
    await consumer.subscribe({ topic, fromBeginning: true })
    const received = Promise.withResolvers<void>()
    received.promise.catch(() => undefined)
    consumer.on('consumer.crash', ({ payload }) => {
      // While the coordinator loads, the consumer gives up now and then and starts again by itself.
      if (!payload.restart) received.reject(payload.error)
    })
    await consumer.run({ eachMessage: async () => received.resolve() })
    await Promise.race([received.promise, tooLate])
  } finally {
    timer.abort()
    await Promise.all([consumer.disconnect(), producer.disconnect()])
    await admin.deleteGroups([groupId]).catch(() => undefined)
    await admin.deleteTopics({ topics: [topic] }).catch(() => undefined)
    await admin.disconnect()
  }
}

function client(brokers: readonly string[], retries = 0, security?: KafkaSecurity): Kafka {
  const protection: Partial<KafkaConfig> = security
    ? { ssl: { ca: security.authorities }, sasl: { mechanism: 'plain', username: security.user, password: security.password } }
    : {}
  return new Kafka({
    ...protection,
    clientId: 'server-launcher',
    brokers: [...brokers],
    logLevel: logLevel.NOTHING,
    connectionTimeout: 2_000,
    requestTimeout: 5_000,
    retry: { retries, initialRetryTime: 100, maxRetryTime: 1_000 },
  })
}
