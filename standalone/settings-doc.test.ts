import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { settingsDoc } from './settings-doc.ts'

test('docs/settings.md tells the settings as they are; npm run docs writes it anew', () => {
  expect(readFileSync(join(import.meta.dirname, '..', 'docs', 'settings.md'), 'utf8')).toBe(settingsDoc())
})
