import { createGrpcWebTransport, type GrpcWebTransportOptions } from "@connectrpc/connect-web";

import { before, type Connect } from "./session.js";

export { reason, violations } from "./details.js";
export { type Connect, Session } from "./session.js";

/**
 * Reaches a server from a browser, which speaks no gRPC, by gRPC-Web. The options' own
 * interceptors see each try, with its token.
 */
export function overGrpcWeb(options: GrpcWebTransportOptions): Connect {
  return (interceptors) => createGrpcWebTransport(before(interceptors, options));
}
