import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { createMetrics } from '../../service-kit/metrics.ts'
import { openSqliteDatabase } from './database.ts'

let folder: string
let path: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'registry-sqlite-'))
  path = join(folder, 'registry.sqlite')
})
afterEach(() => rmSync(folder, { recursive: true }))

const open = () => openSqliteDatabase(path, createMetrics())
const lease = (id: string) => `INSERT INTO edges VALUES ('${id}', 'n', 'a:1', '', 0, 1, 0, 9000000000000)`

test('what a write has promised is there after the file was closed and opened again', async () => {
  const first = open()
  await first.write(() => first.connection.exec(lease('e1')))
  await first.close()
  const second = open()
  expect(second.connection.prepare('SELECT edge_id FROM edges').all()).toMatchObject([{ edge_id: 'e1' }])
  expect(second.connection.prepare('PRAGMA synchronous').get()).toMatchObject({ synchronous: 2 })
  expect(second.connection.prepare('PRAGMA journal_mode').get()).toMatchObject({ journal_mode: 'wal' })
  await second.close()
})

test('closing writes what still waits', async () => {
  const database = open()
  const written = database.write(() => database.connection.exec(lease('e1')))
  await database.close()
  await written
  const again = open()
  expect(again.connection.prepare('SELECT count(*) AS n FROM edges').get()).toMatchObject({ n: 1 })
  await again.close()
})

test('when one write of a turn fails none of them has happened', async () => {
  const database = open()
  const good = database.write(() => database.connection.exec(lease('e1')))
  const bad = database.write(() => database.connection.exec('INSERT INTO edges VALUES (1)'))
  await expect(bad).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  await expect(good).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
  expect(database.connection.prepare('SELECT count(*) AS n FROM edges').get()).toMatchObject({ n: 0 })
  await database.write(() => database.connection.exec(lease('e1')))
  await database.close()
  await expect(database.write(() => {})).rejects.toMatchObject({ reason: 'REGISTRY_UNAVAILABLE' })
})

test('a file that another process has open is a clear error, and free when that process has ended', async () => {
  const script = `
    import { openSqliteDatabase } from ${JSON.stringify(import.meta.resolve('./database.ts'))}
    import { createMetrics } from ${JSON.stringify(import.meta.resolve('../../service-kit/metrics.ts'))}
    openSqliteDatabase(${JSON.stringify(path)}, createMetrics())
    process.stdout.write('open')
    setInterval(() => {}, 1000)`
  const other = spawn(process.execPath, ['--input-type=module', '-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  try {
    await once(other.stdout, 'data')
    expect(open).toThrow(`${path} is in use by another process`)
  } finally {
    other.kill('SIGKILL')
    await once(other, 'exit')
  }
  await open().close()
})

test('a file of the first version gets what came later, and keeps its rows', async () => {
  const database = open()
  await database.write(() => database.connection.exec(lease('e1')))
  await database.close()
  const first = new DatabaseSync(path)
  first.exec(
    'DROP TABLE inbox; DROP TABLE inbox_tombstones; DROP TABLE receipts; DROP TABLE session_takeovers; PRAGMA user_version = 1',
  )
  first.close()
  const now = open()
  expect(now.connection.prepare('PRAGMA user_version').get()).toEqual({ user_version: 3 })
  expect(now.connection.prepare('SELECT edge_id FROM edges').all()).toMatchObject([{ edge_id: 'e1' }])
  expect(now.connection.prepare('SELECT count(*) AS n FROM inbox').get()).toMatchObject({ n: 0 })
  await now.close()
})

test('a file of a newer version is a clear error', async () => {
  await open().close()
  const newer = new DatabaseSync(path)
  newer.exec('PRAGMA user_version = 99')
  newer.close()
  expect(open).toThrow(/was written by a newer version \(schema 99, known is 3\)/)
})

test('a file that is no database, and a folder that is not there, are clear errors', () => {
  writeFileSync(path, 'x'.repeat(5000))
  expect(open).toThrow(`${path} is not a registry database`)
  const nowhere = join(folder, 'missing', 'registry.sqlite')
  expect(() => openSqliteDatabase(nowhere, createMetrics())).toThrow(`${nowhere} cannot be opened`)
})
