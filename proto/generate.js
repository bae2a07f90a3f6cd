// Writes gen/ anew from proto/. With --check it changes nothing, and fails when gen/ is not what it would write.
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

const root = dirname(import.meta.dirname)
const devicePath = 'proto/push/v1/device.proto'

if (process.argv.includes('--check')) check()
else {
  rmSync(join(root, 'gen'), { recursive: true, force: true })
  generate(root)
}

/** @param {string} base the folder that gets `gen/` */
function generate(base) {
  buf('generate', '-o', base, '--exclude-path', devicePath)
  // Device frames travel as JSON with snake_case keys: their types are the wire objects.
  buf('generate', '-o', base, '--template', 'buf.gen.device.yaml', '--path', devicePath)
  // For server reflection.
  buf('build', '--as-file-descriptor-set', '-o', join(base, 'gen', 'descriptors.binpb'))
}

function check() {
  const base = mkdtempSync(join(tmpdir(), 'pushplane-gen-'))
  try {
    generate(base)
    const [is, wanted] = [contents(join(root, 'gen')), contents(join(base, 'gen'))]
    const differing = [...new Set([...is.keys(), ...wanted.keys()])].filter((name) => is.get(name) !== wanted.get(name))
    if (differing.length === 0) return
    process.stderr.write(
      `gen/ is not what proto/ generates; run "npm run generate". It differs in:\n${differing.map((name) => `  ${name}\n`).join('')}`,
    )
    process.exitCode = 1
  } finally {
    rmSync(base, { recursive: true, force: true })
  }
}

/**
 * @param {string} folder
 * @returns {Map<string, string>}
 */
function contents(folder) {
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile())
  return new Map(
    files.map((entry) => {
      const path = join(entry.parentPath, entry.name)
      return [path.slice(folder.length + 1), readFileSync(path, 'base64')]
    }),
  )
}

/** @param {string[]} args */
function buf(...args) {
  execFileSync(join(root, 'node_modules/.bin/buf'), args, { cwd: root, stdio: 'inherit' })
}
