import { createGrpcTransport, type GrpcTransportOptions } from "@connectrpc/connect-node";

import { before, type Connect } from "./session.js";

export { reason, violations } from "./details.js";
export { type Connect, Session } from "./session.js";

/** Reaches a server by gRPC. The options' own interceptors see each try, with its token. */
export function overGrpc(options: GrpcTransportOptions): Connect {
  return (interceptors) => createGrpcTransport(before(interceptors, options));
}
