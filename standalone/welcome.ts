/** What the block at the start tells. */
export interface WelcomeFacts {
  readonly routerAddress: string
  readonly registryAddress: string
  readonly edgeAddress: string
  readonly deviceAddress: string
  readonly dataPath: string
}

/** Where `push-cli` looks unless told otherwise. */
const defaultRouterAddress = '127.0.0.1:7400'
const defaultDeviceAddress = '127.0.0.1:7480'

/** The block that a person reads when the plane is up: where everything is, how to try it, how to stop and reset it. */
export function welcomeText({ routerAddress, registryAddress, edgeAddress, deviceAddress, dataPath }: WelcomeFacts): string {
  const address = routerAddress === defaultRouterAddress ? '' : ` --address ${routerAddress}`
  const url = deviceAddress === defaultDeviceAddress ? '' : ` --url ws://${deviceAddress}/v1/connect`
  return `
Pushplane is running: registry, router and edge in one process, for trying out.

  publishers  ${routerAddress}  (gRPC, no credentials: loopback only)
  devices     ws://${deviceAddress}/v1/connect
  inside      registry ${registryAddress}, edge ${edgeAddress}
  data        ${dataPath}
  stop        Ctrl-C
  reset       stop, then delete the data folder

The device "demo" is connected and prints here what it receives. In a second terminal:

  npx push-cli send --device demo --direct --data '{"hello":"world"}'${address}

A device of your own:

  npx push-cli listen --device my-tv${url}
`
}
