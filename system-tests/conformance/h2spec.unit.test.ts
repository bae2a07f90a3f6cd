import { expect, test } from 'vitest'
import { parseReport } from './h2spec.ts'

test('cases are numbered within their section, as h2spec names them, and failures keep their words, whatever bytes those quote', () => {
  const report = parseReport(`<?xml version="1.0" encoding="UTF-8"?>
<testsuites>
  <testsuite name="6.7. PING" package="http2/6.7" id="6.7" tests="2" skipped="0" failures="0" errors="1">
    <testcase package="http2/6.7" classname="Sends a PING frame" time="0.0137"></testcase>
    <testcase package="http2/6.7" classname="Sends a &#34;PING&#34; frame with ACK" time="0.0168">
      <error>PING Frame (length:8, opaque_data:h2spec\0\0)
Connection closed</error>
    </testcase>
  </testsuite>
  <testsuite name="2. Streams" package="generic/2" id="2" tests="3" skipped="1" failures="1" errors="0">
    <testcase package="generic/2" classname="one" time="0.0010"><failure>no</failure></testcase>
    <testcase package="generic/2" classname="two" time="0.0010">
      <skipped></skipped>
    </testcase>
    <testcase package="generic/2" classname="three" time="0.0010"></testcase>
  </testsuite>
</testsuites>`)
  expect(report.caseCount).toBe(5)
  expect([...report.failures]).toEqual([
    ['http2/6.7/2', 'PING Frame (length:8, opaque_data:h2spec\0\0)\nConnection closed'],
    ['generic/2/1', 'no'],
  ])
})
