import { createGrpcWebTransport, type GrpcWebTransportOptions } from "@connectrpc/connect-web";

import { type Connect, withInterceptors } from "./session.js";

export { reason, violations } from "./details.js";
export { type Connect, Session } from "./session.js";

/**
 * Connects to a server over gRPC-Web, because browsers do not speak gRPC. The interceptors in the
 * options run for each attempt of a call, and see its token.
 */
export function overGrpcWeb(options: GrpcWebTransportOptions): Connect {
  return (interceptors) => createGrpcWebTransport(withInterceptors(options, interceptors));
}
