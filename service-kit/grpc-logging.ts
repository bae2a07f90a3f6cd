import { logVerbosity, setLogVerbosity } from '@grpc/grpc-js'

/**
 * Keeps grpc-js from writing lines of its own to standard error: what matters of them comes back as an error or as a
 * state of the connection, and is told in our log. An operator who sets GRPC_VERBOSITY gets them all the same.
 */
export function quietGrpcLibrary(): void {
  if (process.env.GRPC_VERBOSITY === undefined && process.env.GRPC_NODE_VERBOSITY === undefined)
    setLogVerbosity(logVerbosity.NONE)
}
