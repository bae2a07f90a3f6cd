import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { DataFolderError, takeDataFolder } from './data-folder.ts'

let base = ''
beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'pushplane-data-'))
})
afterEach(() => rmSync(base, { recursive: true, force: true }))

/** Tries to take the folder in another process; returns what it printed. */
function takeElsewhere(folder: string, then = ''): string {
  const script = `
    const { takeDataFolder } = await import(${JSON.stringify(join(import.meta.dirname, 'data-folder.ts'))})
    try { takeDataFolder(${JSON.stringify(folder)}); console.log('taken') } catch (error) { console.log(error.name + ': ' + error.message) }
    ${then}`
  return spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' }).stdout
}

test('a folder in use is refused with the process that has it', () => {
  const folder = takeDataFolder(join(base, 'data'))
  expect(takeElsewhere(folder.path)).toContain(
    `DataFolderError: the data folder ${folder.path} is in use by process ${process.pid};`,
  )
  folder.release()
  expect(takeElsewhere(folder.path)).toContain('taken')
})

test('a process that was killed leaves no lock behind', () => {
  const folder = join(base, 'data')
  expect(takeElsewhere(folder, `process.kill(process.pid, 'SIGKILL')`)).toContain('taken')
  takeDataFolder(folder).release()
})

test('a folder that cannot be made is refused with the setting', () => {
  writeFileSync(join(base, 'file'), '')
  expect(() => takeDataFolder(join(base, 'file', 'data'))).toThrow(DataFolderError)
  expect(() => takeDataFolder(join(base, 'file', 'data'))).toThrow(/set STANDALONE_DATA_FOLDER/)
})

test('a folder in which nothing can be written is refused with the setting, and is not kept locked', () => {
  const folder = join(base, 'data')
  // Stands for files of another user, which the superuser that tests may run as could write all the same.
  mkdirSync(join(folder, 'pid'), { recursive: true })
  expect(() => takeDataFolder(folder)).toThrow(DataFolderError)
  expect(() => takeDataFolder(folder)).toThrow(/cannot be used: EISDIR.*; set STANDALONE_DATA_FOLDER/)
})
