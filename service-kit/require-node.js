// Read by old versions of Node as well: plain JavaScript, and nothing newer than ES modules themselves.

/**
 * Ends the process with a plain sentence unless Node is at least that version. To be imported by launchers before
 * anything that only a newer Node can read.
 *
 * @param {number} minMajor
 * @param {number} minMinor
 */
export function requireNode(minMajor, minMinor) {
  var found = process.versions.node
  if (nodeSuffices(found, minMajor, minMinor)) return
  process.stderr.write(`Pushplane needs Node ${minMajor}.${minMinor} or newer; this is Node ${found} (${process.execPath}).\n`)
  process.exit(1)
}

/**
 * Whether a version such as `20.11.1` is at least `minMajor.minMinor`.
 *
 * @param {string} version
 * @param {number} minMajor
 * @param {number} minMinor
 */
export function nodeSuffices(version, minMajor, minMinor) {
  var parts = version.split('.')
  var major = Number(parts[0])
  var minor = Number(parts[1])
  return major > minMajor || (major === minMajor && minor >= minMinor)
}
