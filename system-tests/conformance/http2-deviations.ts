/**
 * Where gRPC ports do not do what h2spec wants of an HTTP/2 server. All of it is nghttp2's and Node's way, none can be set from here, and none
 * lets a peer do harm: the connection or stream that broke a rule is answered, ignored or closed, and calls on others go on.
 */

/** A gRPC server answers h2spec's plain requests at once; a frame that comes later, on a stream that is over, is ignored. A race, so not always. */
const answeredBefore = 'the answer to the request is out before the frame that breaks the rule comes in'

/** What is known of each case that fails. */
export const knownDeviations: Readonly<Record<string, string>> = {
  'generic/2/2': 'h2spec wants a DATA frame; a request without a gRPC content type is answered by headers alone',
  'generic/2/3': 'as generic/2/2',
  'http2/5.1/8': 'frames on a stream that its peer has reset are ignored, which RFC 9113, 5.1 allows for those under way',
  'http2/5.1/9': 'as 5.1/8',
  'http2/5.1/11': 'DATA on a closed stream is ignored, and its bytes are given back to the connection window',
  'http2/5.1/12': 'HEADERS on a closed stream are ignored',
  'http2/5.1.1/2': 'HEADERS with a lower stream id than before are ignored',
  'http2/5.1.2/1':
    'requests without a gRPC content type are over at once, so that the limit of streams at one time is never reached',
  'http2/5.3.1/2': 'priorities are obsolete since RFC 9113, and PRIORITY frames are not looked at',
  'http2/6.3/1': 'as 5.3.1/2',
  'http2/6.7/2': 'Node closes the connection of a peer that acknowledges a PING that was never sent',
  'http2/6.9.1/3': 'the connection is closed, where the stream alone might be reset',
  'http2/5.1/5': answeredBefore,
  'http2/5.1/6': answeredBefore,
  'http2/6.1/2': answeredBefore,
  'http2/6.1/3': answeredBefore,
  'http2/8.1/1': answeredBefore,
  'http2/8.1.2.6/1': answeredBefore,
  'http2/8.1.2.6/2': answeredBefore,
}
