// Writes gen/ anew from proto/. CI runs it and fails when the result differs from what is committed.
import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { dirname } from 'node:path'

const root = dirname(import.meta.dirname)
const devicePath = 'proto/push/v1/device.proto'

/** @param {string[]} args */
const buf = (...args) => execFileSync('node_modules/.bin/buf', args, { cwd: root, stdio: 'inherit' })

rmSync(`${root}/gen`, { recursive: true, force: true })
buf('generate', '--exclude-path', devicePath)
// Device frames travel as JSON with snake_case keys: their types are the wire objects.
buf('generate', '--template', 'buf.gen.device.yaml', '--path', devicePath)
// For server reflection.
buf('build', '--as-file-descriptor-set', '-o', 'gen/descriptors.binpb')
