#!/usr/bin/env node
import { requireNode } from '../service-kit/require-node.js'

requireNode(24, 3)
await import('./main.ts')
