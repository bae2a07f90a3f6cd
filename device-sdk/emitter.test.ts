import { expect, test } from 'vitest'
import { createEmitter } from './emitter.ts'

test('a listener hears events until it leaves', () => {
  const emitter = createEmitter<{ tick: number }>()
  const heard: number[] = []
  const leave = emitter.on('tick', (event) => heard.push(event))
  emitter.emit('tick', 1)
  leave()
  emitter.emit('tick', 2)
  expect(heard).toEqual([1])
})
