import { createClient } from "@connectrpc/connect";

import { reason, violations } from "./details.js";
import { AuthService } from "./gen/tenantry/v1/auth_service_pb.js";
import { DecisionReason, PermissionService } from "./gen/tenantry/v1/permission_service_pb.js";
import { RoleLevel, RoleService } from "./gen/tenantry/v1/role_service_pb.js";
import { UserService } from "./gen/tenantry/v1/user_service_pb.js";
import { type Connect, Session } from "./session.js";

/** Creates a tenant, a user and a role, and checks what the user may do. */
export async function runExample(connect: Connect, print: (line: string) => void): Promise<void> {
  const tenant = `acme-${crypto.randomUUID().slice(0, 8)}`;
  const email = "ada@acme.test";
  const password = "correct horse battery";

  await createClient(AuthService, connect([])).register({
    email,
    password,
    organizationName: "Acme",
    organizationSlug: tenant,
  });
  const session = await Session.signIn(connect, tenant, email, password);
  const userId = await createUserWithRole(session);

  const permissions = createClient(PermissionService, session.transport);
  for (const region of ["eu", "asia"]) {
    const response = await permissions.check({
      userId,
      permission: "invoice:read",
      scope: { region },
    });
    const decision = response.allowed ? "allowed" : "denied";
    print(`invoice:read in ${region}: ${decision} (${DecisionReason[response.reason]})`);
  }

  try {
    await createClient(UserService, session.transport).createUser({ email: "grace" });
  } catch (error) {
    for (const [field, description] of violations(error)) {
      print(`refused (${reason(error)}): ${field}: ${description}`);
    }
  }
  await session.signOut();
}

/** Creates a user who has all invoice permissions in the regions eu and us. */
async function createUserWithRole({ transport }: Session): Promise<string> {
  const users = createClient(UserService, transport);
  const { user } = await users.createUser({ email: "grace@acme.test" });
  const roles = createClient(RoleService, transport);
  const { role } = await roles.createRole({
    name: "billing",
    level: RoleLevel.MEMBER,
    permissions: ["invoice:*"],
  });
  const userId = user?.id ?? "";
  await roles.assignRole({ userId, roleId: role?.id ?? "", scope: { region: ["eu", "us"] } });
  return userId;
}
