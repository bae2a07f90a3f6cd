/** One panel: what happened, and its courses. */
export interface Panel {
  readonly title: string
  readonly lines: readonly { readonly color: string; readonly perSecond: ArrayLike<number> }[]
  /** Drawn as a dashed line across. */
  readonly steadyPerSecond: number
  /** When it happened, in seconds. */
  readonly eventAtSecond: number
}

export interface ChartOptions {
  readonly title: string
  readonly notes: readonly string[]
  readonly legend: readonly { readonly color: string; readonly text: string }[]
  readonly columns: number
  readonly panels: readonly Panel[]
  readonly maxPerSecond: number
}

const panelWidth = 340
const panelHeight = 190
const gap = { left: 62, right: 28, top: 34, bottom: 34 }
const head = 66
const lineHeight = 16
/** The least that is drawn, as 0 has no place on a logarithmic axis. */
const leastPerSecond = 1

/** Draws reconnects a second over time, on a logarithmic axis; of the seconds that share a place the highest shows. Returns an SVG document. */
export function drawReconnects({ title, notes, legend, columns, panels, maxPerSecond }: ChartOptions): string {
  const cellWidth = gap.left + panelWidth + gap.right
  const cellHeight = gap.top + panelHeight + gap.bottom
  const width = columns * cellWidth
  const rows = Math.ceil(panels.length / columns)
  const height = head + rows * cellHeight + notes.length * lineHeight + 12
  const decades = Math.ceil(Math.log10(maxPerSecond))
  const yOf = (perSecond: number) =>
    panelHeight * (1 - Math.log10(Math.max(perSecond, leastPerSecond) / leastPerSecond) / decades)
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="12">`,
    `<title>${title}</title>`,
    `<rect width="${width}" height="${height}" fill="#fff"/>`,
    text(gap.left, 24, title, 'font-size="16" font-weight="bold"'),
  ]
  let legendX = gap.left
  for (const { color, text: words } of legend) {
    parts.push(`<rect x="${legendX}" y="38" width="18" height="4" fill="${color}"/>`, text(legendX + 24, 44, words))
    legendX += 40 + words.length * 6.6
  }
  for (const [index, panel] of panels.entries()) {
    const x = (index % columns) * cellWidth + gap.left
    const y = head + Math.floor(index / columns) * cellHeight + gap.top
    parts.push(`<g transform="translate(${x} ${y})">`, ...panelParts(panel, decades, yOf), '</g>')
  }
  const notesY = head + rows * cellHeight + 8
  for (const [index, note] of notes.entries()) parts.push(text(gap.left, notesY + index * lineHeight, note, 'fill="#444"'))
  return `${parts.join('\n')}\n</svg>\n`
}

function panelParts(panel: Panel, decades: number, yOf: (perSecond: number) => number): string[] {
  const seconds = Math.max(...panel.lines.map(({ perSecond }) => perSecond.length))
  const xOf = (second: number) => (second / seconds) * panelWidth
  const parts = [text(0, -10, panel.title, 'font-weight="bold"')]
  for (let decade = 0; decade <= decades; decade++) {
    const y = yOf(10 ** decade)
    parts.push(line(0, y, panelWidth, y, '#ddd'), text(-8, y + 4, (10 ** decade).toLocaleString('en'), 'text-anchor="end"'))
  }
  for (let second = panel.eventAtSecond; second <= seconds; second += 1_800) {
    const x = xOf(second)
    const minutes = Math.round((second - panel.eventAtSecond) / 60)
    parts.push(line(x, 0, x, panelHeight, '#ddd'), text(x, panelHeight + 16, `${minutes} min`, 'text-anchor="middle"'))
  }
  const steadyY = yOf(panel.steadyPerSecond)
  parts.push(line(0, steadyY, panelWidth, steadyY, '#888', 'stroke-dasharray="5 4"'))
  for (const { color, perSecond } of panel.lines) {
    const points = highestByPlace(perSecond, panelWidth).map((value, x) => `${x},${yOf(value).toFixed(1)}`)
    parts.push(`<polyline fill="none" stroke="${color}" stroke-width="1.3" points="${points.join(' ')}"/>`)
  }
  return parts
}

function highestByPlace(perSecond: ArrayLike<number>, places: number): number[] {
  const highest = new Array<number>(places).fill(0)
  for (let second = 0; second < perSecond.length; second++) {
    const place = Math.floor((second * places) / perSecond.length)
    highest[place] = Math.max(highest[place] ?? 0, perSecond[second] ?? 0)
  }
  return highest
}

const line = (x1: number, y1: number, x2: number, y2: number, color: string, more = '') =>
  `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${color}" ${more}/>`

function text(x: number, y: number, words: string, attributes = ''): string {
  const escaped = words.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
  return `<text x="${x}" y="${y}" ${attributes}>${escaped}</text>`
}
