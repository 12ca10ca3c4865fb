import { ConnectError } from "@connectrpc/connect";

import { BadRequestSchema, ErrorInfoSchema } from "./gen/google/rpc/error_details_pb.js";

/**
 * Why a call was refused, by its name in error_reason.proto; empty where the error is
 * not the service's. Rely on this, and not on the message.
 */
export function reason(error: unknown): string {
  const infos = ConnectError.from(error).findDetails(ErrorInfoSchema);
  return infos.find((info) => info.domain === "tenantry")?.reason ?? "";
}

/** What is wrong with a request's fields, by the field's name. */
export function violations(error: unknown): Map<string, string> {
  const all = ConnectError.from(error)
    .findDetails(BadRequestSchema)
    .flatMap((bad) => bad.fieldViolations);
  return new Map(all.map(({ field, description }) => [field, description]));
}
