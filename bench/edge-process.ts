import { fileURLToPath } from 'node:url'
import { ServiceProcess } from '../system-tests/plane/service-process.ts'

/** An edge in a process of its own, on ports that the system chooses; not started yet. Its log lies in `folder`. */
export function edgeProcess(folder: string, settings: Readonly<Record<string, string>>): ServiceProcess {
  return new ServiceProcess({
    name: 'edge',
    entry: fileURLToPath(new URL('../edge/main.ts', import.meta.url)),
    readyPhrase: 'edge ready',
    folder,
    env: {
      EDGE_LISTEN_ADDRESS: '127.0.0.1:0',
      EDGE_DEVICE_LISTEN_ADDRESS: '127.0.0.1:0',
      EDGE_METRICS_ADDRESS: '127.0.0.1:0',
      ...settings,
    },
  })
}
