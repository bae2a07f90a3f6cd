import { copyFile, mkdtemp, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { AuditJournalError, openAuditJournal } from './journal-file.ts'

let folder: string
let path: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'audit-journal-'))
  path = join(folder, 'audit')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const record = (text: string) => ({ key: `device/${text}`, value: Buffer.from(text) })
const textsIn = (journal: ReturnType<typeof openAuditJournal>, countMax = 100) =>
  journal.oldest(countMax).map(({ value }) => Buffer.from(value).toString())

/** What a process that opens the file after a crash at this moment finds. */
async function afterCrash(cutOffBytes = 0): Promise<string[]> {
  const copy = join(folder, 'copy')
  await copyFile(path, copy)
  await copyFile(`${path}-wal`, `${copy}-wal`)
  if (cutOffBytes > 0) await truncate(`${copy}-wal`, (await stat(`${copy}-wal`)).size - cutOffBytes)
  const journal = openAuditJournal(copy)
  const found = textsIn(journal)
  expect(journal.count).toBe(found.length)
  journal.close()
  await rm(copy)
  return found
}

test('records come in the order in which they were put there, also after the file was empty', () => {
  const journal = openAuditJournal(path)
  journal.append([record('a'), record('b')])
  journal.append([record('c')])
  expect(textsIn(journal)).toEqual(['a', 'b', 'c'])
  expect(textsIn(journal, 2)).toEqual(['a', 'b'])
  journal.removeUpTo(journal.oldest(3)[2]?.id ?? 0)
  expect(journal.count).toBe(0)
  journal.append([record('d')])
  journal.append([record('e')])
  expect(textsIn(journal)).toEqual(['d', 'e'])
  expect(journal.oldest(1)[0]).toMatchObject({ id: 4, key: 'device/d' })
  journal.close()
})

test('what append has returned from is there after a crash', async () => {
  const journal = openAuditJournal(path)
  journal.append([record('a')])
  journal.append([record('b')])
  expect(await afterCrash()).toEqual(['a', 'b'])
  journal.removeUpTo(1)
  expect(await afterCrash()).toEqual(['b'])
  journal.close()
})

test('a last record that was only half written is not there, and those before it are', async () => {
  const journal = openAuditJournal(path)
  journal.append([record('a')])
  journal.append([record('b')])
  expect(await afterCrash(100)).toEqual(['a'])
  journal.close()
})

test('a file of two routers is refused to the second, and free when the first is gone', () => {
  const journal = openAuditJournal(path)
  expect(() => openAuditJournal(path)).toThrow(/in use by another process.*ROUTER_AUDIT_PATH/)
  journal.close()
  openAuditJournal(path).close()
})

test('a file that is no journal is left as it is, and so is told', async () => {
  await writeFile(path, 'this is not a database, and longer than its header would be '.repeat(20))
  expect(() => openAuditJournal(path)).toThrow(AuditJournalError)
  expect(() => openAuditJournal(join(folder, 'nowhere', 'audit'))).toThrow(/cannot be opened.*move it, do not delete it/)
})

test('of what cannot be written whole, nothing is written', () => {
  const journal = openAuditJournal(path)
  const wrong = { key: 'k', value: 'not bytes' as unknown as Uint8Array }
  journal.append([record('a')])
  expect(() => journal.append([record('b'), { key: Symbol('x') as unknown as string, value: wrong.value }])).toThrow()
  expect(journal.count).toBe(1)
  expect(textsIn(journal)).toEqual(['a'])
  journal.append([record('c')])
  expect(textsIn(journal)).toEqual(['a', 'c'])
  journal.close()
})
