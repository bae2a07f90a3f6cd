import { readdirSync, readFileSync } from 'node:fs'
import { expect, test } from 'vitest'

const folder = new URL('./', import.meta.url)
const sources = readdirSync(folder).filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'))

test('the SDK imports its own files and the frames only', () => {
  const imported = sources.flatMap((name) =>
    [...readFileSync(new URL(name, folder), 'utf8').matchAll(/(?:from|import\()\s*'([^']+)'/g)].map((match) => match[1] ?? ''),
  )
  expect(imported.length).toBeGreaterThan(20)
  expect(imported.filter((from) => !/^\.\/[a-z-]+\.ts$/.test(from) && from !== '../gen/push/v1/device.ts')).toEqual([])
})

test('the SDK uses no global that a browser lacks', () => {
  const nodeOnly = /\b(?:Buffer|process|setImmediate|clearImmediate|__dirname|require)\b/
  const code = (name: string) => readFileSync(new URL(name, folder), 'utf8').replace(/\/\*[\s\S]*?\*\/|\/\/.*/g, '')
  expect(sources.filter((name) => nodeOnly.test(code(name)))).toEqual([])
})

test('time and chance come from the two files that may have them', () => {
  const direct = /\b(?:setTimeout|setInterval|Date\.now|new Date|performance\.now|Math\.random)\b/
  const users = sources.filter((name) => direct.test(readFileSync(new URL(name, folder), 'utf8')))
  expect(users.sort()).toEqual(['clock.ts', 'random.ts'])
})
