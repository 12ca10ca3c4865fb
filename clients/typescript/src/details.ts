import { ConnectError } from "@connectrpc/connect";

import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/**
 * Returns the reason of a refused call: the name of a value in error_reason.proto. The reason is
 * empty if the error does not come from Tenantry. Rely on the reason, not on the message.
 */
export function reason(error: unknown): string {
  const infos = ConnectError.from(error).findDetails(ErrorInfoSchema);
  return infos.find((info) => info.domain === "tenantry")?.reason ?? "";
}

/** Returns the violations of a request's field rules, by the name of the field. */
export function violations(error: unknown): Map<string, string> {
  const fieldViolations = ConnectError.from(error)
    .findDetails(BadRequestSchema)
    .flatMap((bad) => bad.fieldViolations);
  return new Map(fieldViolations.map(({ field, description }) => [field, description]));
}
