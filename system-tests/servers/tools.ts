import { execFile } from 'node:child_process'
import { access, constants } from 'node:fs/promises'
import { delimiter, join } from 'node:path'
import process from 'node:process'

const javaVersionMin = 17

/** Where to find a command, or undefined when PATH has none. */
export async function findCommand(name: string): Promise<string | undefined> {
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    if (folder === '') continue
    const file = join(folder, name)
    try {
      await access(file, constants.X_OK)
      return file
    } catch {
      // Not in this folder.
    }
  }
  return undefined
}

/**
 * Checks what real servers need: Java 17 or later, and Maven when jars have still to be fetched.
 * Throws one error that names everything missing, and what works without.
 */
export async function requireTools(need: { readonly maven: boolean }): Promise<void> {
  const problems: string[] = []
  if ((await findCommand('java')) === undefined) {
    problems.push(`java is not on PATH; Java ${javaVersionMin} or later is needed`)
  } else {
    const version = await javaVersion()
    if (version === undefined) problems.push('`java -version` does not answer with a version')
    else if (version < javaVersionMin) problems.push(`java on PATH is version ${version}; ${javaVersionMin} or later is needed`)
  }
  if (need.maven && (await findCommand('mvn')) === undefined) {
    problems.push('mvn is not on PATH; Maven fetches the servers once from Maven Central')
  }
  if (problems.length === 0) return
  throw new Error(
    `real Kafka and Cassandra cannot be started:\n${problems.map((problem) => `  ${problem}`).join('\n')}\n` +
      'Without them, `npm run test:unit` runs all tests that need no server.',
  )
}

async function javaVersion(): Promise<number | undefined> {
  // The version goes to stderr, as `openjdk version "17.0.15"` or, before Java 9, `"1.8.0_392"`.
  const text = await new Promise<string>((resolve) => {
    execFile('java', ['-version'], { timeout: 20_000 }, (_error, stdout, stderr) => resolve(stderr + stdout))
  })
  const match = /version "(?:1\.)?(\d+)/.exec(text)
  return match?.[1] === undefined ? undefined : Number(match[1])
}
