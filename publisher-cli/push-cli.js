#!/usr/bin/env node
// Read by every Node there is: plain JavaScript until the version is known to suffice.
import { requireNode } from '../service-kit/require-node.js'

requireNode(24, 3)
await import('./main.ts')
