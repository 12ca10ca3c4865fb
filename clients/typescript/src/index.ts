import { createGrpcTransport, type GrpcTransportOptions } from "@connectrpc/connect-node";

import { before, type Connect } from "./session.js";

export { reason, violations } from "./details.js";
export { type Connect, Session } from "./session.js";

/**
 * Connects to a server over gRPC. The interceptors in the options see each attempt, with its token.
 */
export function overGrpc(options: GrpcTransportOptions): Connect {
  return (interceptors) => createGrpcTransport(before(interceptors, options));
}
