import { createGrpcTransport, type GrpcTransportOptions } from "@connectrpc/connect-node";

import { type Connect, withInterceptors } from "./session.js";

export { reason, violations } from "./details.js";
export { type Connect, Session } from "./session.js";

/**
 * Connects to a server over gRPC. The interceptors in the options run for each attempt of a call,
 * and see its token.
 */
export function overGrpc(options: GrpcTransportOptions): Connect {
  return (interceptors) => createGrpcTransport(withInterceptors(options, interceptors));
}
