import { createGrpcWebTransport, type GrpcWebTransportOptions } from "@connectrpc/connect-web";

import { before, type Connect } from "./session.js";

export { reason, violations } from "./details.js";
export { type Connect, Session } from "./session.js";

/**
 * Connects to a server over gRPC-Web, because browsers do not speak gRPC. The interceptors in the
 * options see each attempt, with its token.
 */
export function overGrpcWeb(options: GrpcWebTransportOptions): Connect {
  return (interceptors) => createGrpcWebTransport(before(interceptors, options));
}
