import { readFileSync } from 'node:fs'
import { join } from 'node:path'

/** All contracts as a serialised FileDescriptorSet, for server reflection. Read from `gen/`, where generating puts it. */
export function descriptorSet(): Uint8Array {
  return readFileSync(join(import.meta.dirname, '..', 'gen', 'descriptors.binpb'))
}
