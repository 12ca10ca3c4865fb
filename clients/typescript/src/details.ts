import { ConnectError } from "@connectrpc/connect";

import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/**
 * Returns the reason of a refused call, by its name in error_reason.proto. It is empty if the error
 * does not come from Tenantry. Rely on the reason, not on the message.
 */
export function reason(error: unknown): string {
  const infos = ConnectError.from(error).findDetails(ErrorInfoSchema);
  return infos.find((info) => info.domain === "tenantry")?.reason ?? "";
}

/** Returns the violations of a request's field rules, by the name of the field. */
export function violations(error: unknown): Map<string, string> {
  const all = ConnectError.from(error)
    .findDetails(BadRequestSchema)
    .flatMap((bad) => bad.fieldViolations);
  return new Map(all.map(({ field, description }) => [field, description]));
}
