import { isLoopbackList } from '../../service-kit/client-transport.ts'
import { addressList, flag, oneOf, path, type Setting, setting, text, wholeNumber } from '../../service-kit/config.ts'

/** What an operator sets about Kafka. */
export const kafkaSettings = {
  kafkaBrokers: setting('ROUTER_KAFKA_BROKERS', addressList(), {
    optional: true,
    doc: 'Kafka brokers to begin with, host:port[,host:port…]. Unset: the queue lies in the file that ROUTER_QUEUE_PATH names.',
  }),
  kafkaTopicPrefix: setting('ROUTER_KAFKA_TOPIC_PREFIX', topicPrefix(), {
    default: 'push.',
    doc: 'What the names of topics and consumer groups begin with. All routers of one plane share it.',
  }),
  kafkaCreateTopics: setting('ROUTER_KAFKA_CREATE_TOPICS', flag(), {
    default: true,
    doc: 'Create topics that are missing. Otherwise they must be there.',
  }),
  kafkaPartitionCount: setting('ROUTER_KAFKA_PARTITION_COUNT', wholeNumber({ min: 1, max: 1_000 }), {
    default: 12,
    doc: 'Partitions of topics that are created; at most so many routers share the work of one priority.',
  }),
  kafkaReplicationFactor: setting('ROUTER_KAFKA_REPLICATION_FACTOR', wholeNumber({ min: 1, max: 10 }), {
    default: 3,
    doc: 'Brokers that keep each record, of topics that are created.',
  }),
  kafkaTls: setting('ROUTER_KAFKA_TLS', flag(), {
    default: false,
    doc: 'Reach Kafka over TLS. Brokers are known by their host names.',
  }),
  kafkaTlsCaFile: setting('ROUTER_KAFKA_TLS_CA_FILE', path(), {
    optional: true,
    doc: 'Certificates (PEM) of the authorities that brokers must be certified by. Unset: those that Node believes. Read at the start.',
  }),
  kafkaTlsCertFile: setting('ROUTER_KAFKA_TLS_CERT_FILE', path(), {
    optional: true,
    doc: 'Certificate (PEM) that this router shows to brokers, where they ask for one.',
  }),
  kafkaTlsKeyFile: setting('ROUTER_KAFKA_TLS_KEY_FILE', path(), {
    optional: true,
    doc: 'Private key (PEM) that belongs to that certificate.',
  }),
  kafkaSaslMechanism: setting('ROUTER_KAFKA_SASL_MECHANISM', oneOf(['plain', 'scram-sha-256', 'scram-sha-512']), {
    optional: true,
    doc: 'How the router logs in at Kafka. Unset: no login.',
  }),
  kafkaSaslUser: setting('ROUTER_KAFKA_SASL_USER', text({ maxLength: 200 }), { optional: true, doc: 'Who it logs in as.' }),
  kafkaSaslPassword: setting('ROUTER_KAFKA_SASL_PASSWORD', text({ maxLength: 1_000 }), {
    optional: true,
    secret: true,
    doc: 'The password that goes with the user.',
  }),
  allowWeakDurability: setting('ROUTER_ALLOW_WEAK_DURABILITY', flag(), {
    default: false,
    doc: 'Accept QUEUED messages though topics have fewer than 3 replicas, or fewer than 2 that must be in sync: a disk that breaks can lose them.',
  }),
}

/** What an operator sets about the queue in a file. */
export const embeddedSettings = {
  queuePath: setting('ROUTER_QUEUE_PATH', path(), {
    optional: true,
    doc: 'The file of the embedded queue, for one router alone. Used when ROUTER_KAFKA_BROKERS is unset.',
  }),
}

/** All of them, for the router's config. */
export const queueSettings = { ...kafkaSettings, ...embeddedSettings }

export type QueueConfig = {
  readonly [K in keyof typeof queueSettings]: (typeof queueSettings)[K] extends Setting<infer T> ? T : never
}

/** What is wrong between these settings, as lines for the operator. */
export function queueProblems(config: QueueConfig & { readonly insecure?: boolean }): string[] {
  return [...choiceProblems(config), ...protectionProblems(config)]
}

function choiceProblems(config: QueueConfig): string[] {
  if (config.kafkaBrokers === undefined && config.queuePath === undefined) {
    return [
      'ROUTER_KAFKA_BROKERS is missing; expected host:port[,host:port…], or a file for the embedded queue in ROUTER_QUEUE_PATH',
    ]
  }
  if (config.kafkaBrokers !== undefined && config.queuePath !== undefined) {
    return ['ROUTER_KAFKA_BROKERS and ROUTER_QUEUE_PATH are both set; a router has one queue']
  }
  return config.kafkaBrokers?.startsWith('dns:')
    ? [
        `ROUTER_KAFKA_BROKERS is "${config.kafkaBrokers}"; expected host:port[,host:port…], as Kafka itself names the other brokers`,
      ]
    : []
}

/** What is missing, or would be sent where anybody could read it. */
function protectionProblems(config: QueueConfig & { readonly insecure?: boolean }): string[] {
  const { kafkaBrokers, kafkaTls, kafkaTlsCaFile, kafkaTlsCertFile, kafkaTlsKeyFile } = config
  const { kafkaSaslMechanism, kafkaSaslUser, kafkaSaslPassword } = config
  const problems: string[] = []
  if (!kafkaTls && (kafkaTlsCaFile ?? kafkaTlsCertFile ?? kafkaTlsKeyFile) !== undefined)
    problems.push('ROUTER_KAFKA_TLS is not set, though one of its files is; set ROUTER_KAFKA_TLS=true')
  if ((kafkaTlsCertFile === undefined) !== (kafkaTlsKeyFile === undefined))
    problems.push('ROUTER_KAFKA_TLS_CERT_FILE and ROUTER_KAFKA_TLS_KEY_FILE go together')
  const login = [kafkaSaslMechanism, kafkaSaslUser, kafkaSaslPassword].filter((part) => part !== undefined).length
  if (login > 0 && login < 3)
    problems.push('ROUTER_KAFKA_SASL_MECHANISM, ROUTER_KAFKA_SASL_USER and ROUTER_KAFKA_SASL_PASSWORD go together')
  if (
    kafkaBrokers !== undefined &&
    !kafkaTls &&
    !config.insecure &&
    !isLoopbackList(kafkaBrokers) &&
    !kafkaBrokers.startsWith('dns:')
  )
    problems.push(
      `ROUTER_KAFKA_BROKERS is "${kafkaBrokers}", and without TLS anybody could read along; set ROUTER_KAFKA_TLS=true, or set ROUTER_INSECURE=true`,
    )
  return problems
}

/** Splits the text of ROUTER_KAFKA_BROKERS. */
export function brokerList(addresses: string): string[] {
  return addresses.split(',').map((address) => address.trim())
}

function topicPrefix() {
  return text({ maxLength: 100, pattern: { matches: /^[A-Za-z0-9._-]+$/, expected: '1 to 100 characters of [A-Za-z0-9._-]' } })
}
