import Connection from 'cassandra-driver/lib/connection.js'

let kept = false

/**
 * Keeps the driver from taking one request's answer for another's. Cassandra 5.0 says of a request that has waited too long in its queue (12 s by
 * default) that it is overloaded, and says so on stream 0, whatever stream the request came on. The driver hands that to the request which happens to
 * be on stream 0, gives the stream to the next one, and that one gets the rows meant for the former; from then on the connection has two requests on one
 * stream again and again, and answers go astray for good. So no request goes on stream 0, and a frame that answers nothing frees nothing. The
 * request whose answer was lost runs into its own timeout, and a connection with too many of those is closed by the driver.
 */
export function keepStreamsApart(): void {
  if (kept) return
  kept = true
  const { _getStreamId: take, freeStreamId: free } = Connection.prototype

  Connection.prototype._getStreamId = function () {
    const id = take.call(this)
    // While it connects it has one request under way, and a node that does not know its protocol's version, or wants a
    // login, says so on stream 0.
    if (id !== 0 || !this.connected) return id
    // It is never given back; nobody has it, and the connection can still come to rest.
    this._streamIds.inUse--
    return take.call(this)
  }

  Connection.prototype.freeStreamId = function (header) {
    if (header.streamId < 0 || this._operations.has(header.streamId)) free.call(this, header)
  }
}
