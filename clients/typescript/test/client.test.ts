// Tests against the server at TENANTRY_ADDR.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createHash, randomUUID } from "node:crypto";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import { Code, ConnectError, createClient, type Interceptor } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { AuthService } from "../src/gen/tenantry/v1/auth_service_pb.js";
import { PermissionService } from "../src/gen/tenantry/v1/permission_service_pb.js";
import { ServiceAccountService } from "../src/gen/tenantry/v1/service_account_service_pb.js";
import { UserService } from "../src/gen/tenantry/v1/user_service_pb.js";
import { overGrpc, reason, Session, violations } from "../src/index.js";

const server = { baseUrl: `http://${process.env.TENANTRY_ADDR}` };
const email = "ada@acme.test";
const password = "correct horse battery";

/** Registers a tenant, and signs in its administrator. */
async function signUp(interceptors?: Interceptor[]): Promise<{ session: Session; slug: string }> {
  const slug = `acme-${randomUUID().slice(0, 8)}`;
  await createClient(AuthService, createGrpcTransport(server)).register({
    email,
    password,
    organizationName: "Acme",
    organizationSlug: slug,
  });
  const session = await Session.signIn(overGrpc({ ...server, interceptors }), slug, email, password);
  return { session, slug };
}

/** Replaces the first token of a session by an invalid token, so that the server refuses it. */
function invalidateFirstToken(): Interceptor {
  let firstToken: string | null = null;
  return (next) => (request) => {
    const token = request.header.get("authorization");
    firstToken ??= token;
    if (firstToken !== null && token === firstToken) {
      request.header.set("authorization", "Bearer invalid");
    }
    return next(request);
  };
}

const whoAmI = ({ transport }: Session) => createClient(AuthService, transport).whoAmI({});

/** Awaits a call that must fail, and returns its error. */
async function errorOf(call: Promise<unknown>): Promise<ConnectError> {
  const error = await call.then(() => undefined, ConnectError.from);
  assert.ok(error, "the call succeeded");
  return error;
}

test("calls are made as the user in its tenant", async () => {
  const { session, slug } = await signUp();
  const me = await whoAmI(session);
  assert.equal(me.user?.email, email);
  assert.equal(me.tenant?.slug, slug);
  const auth = createClient(AuthService, session.transport);
  const twoTenants = auth.whoAmI({}, { headers: { "x-tenant-id": "another" } });
  assert.equal((await errorOf(twoTenants)).code, Code.InvalidArgument);
});

test("many calls with an invalid token refresh once", async () => {
  let refreshes = 0;
  const observer: Interceptor = (next) => (request) => {
    if (request.method.name === "Refresh") {
      refreshes += 1;
    }
    return next(request);
  };
  const { session } = await signUp([observer, invalidateFirstToken()]);
  const responses = await Promise.all(Array.from({ length: 16 }, () => whoAmI(session)));
  assert.ok(responses.every((me) => me.user?.email === email));
  assert.equal(refreshes, 1);
  // If the refresh token had been used twice, the session would have ended.
  assert.equal((await whoAmI(session)).user?.email, email);
});

// N20: the request id of a refresh is the hash of the refresh token.
test("two processes with the same refresh token get the same tokens", async () => {
  const refreshRequests: { refreshToken: string; requestId: string }[] = [];
  const observer: Interceptor = (next) => (request) => {
    if (request.method.name === "Refresh") {
      refreshRequests.push(request.message as unknown as (typeof refreshRequests)[number]);
    }
    return next(request);
  };
  const { session } = await signUp([observer, invalidateFirstToken()]);
  await whoAmI(session);
  const [firstRequest] = refreshRequests;
  assert.ok(firstRequest);
  const { refreshToken, requestId } = firstRequest;
  assert.equal(requestId, createHash("sha256").update(refreshToken).digest("base64url"));
  // The request of another process that has the same refresh token.
  const auth = createClient(AuthService, createGrpcTransport(server));
  assert.notEqual((await auth.refresh({ refreshToken, requestId })).accessToken, "");
  assert.equal((await whoAmI(session)).user?.email, email);
});

test("a refresh is repeated after its response was lost", async () => {
  // A session tries a refresh twice, so a call fails only if two responses are lost.
  let responsesToLose = 2;
  const loseResponse: Interceptor = (next) => async (request) => {
    const response = await next(request);
    if (request.method.name === "Refresh" && responsesToLose > 0) {
      responsesToLose -= 1;
      throw new ConnectError("the response is lost", Code.Unknown);
    }
    return response;
  };
  const { session } = await signUp([loseResponse, invalidateFirstToken()]);
  assert.equal((await errorOf(whoAmI(session))).code, Code.Unknown);
  assert.equal((await whoAmI(session)).user?.email, email);
});

test("a stream that is opened again uses the next token", async () => {
  const { session } = await signUp([invalidateFirstToken()]);
  const permissions = createClient(PermissionService, session.transport);
  const firstMessage = async () => {
    for await (const message of permissions.watchPermissions({})) {
      return message;
    }
  };
  assert.equal((await errorOf(firstMessage())).code, Code.Unauthenticated);
  assert.notEqual((await firstMessage())?.consistencyToken, "");
});

test("a service account signs in with its API key", async () => {
  const { session } = await signUp();
  const accounts = createClient(ServiceAccountService, session.transport);
  const { serviceAccount } = await accounts.createServiceAccount({ name: "billing" });
  const { secret } = await accounts.createApiKey({ serviceAccountId: serviceAccount?.id ?? "" });
  const connect = overGrpc({ ...server, interceptors: [invalidateFirstToken()] });
  const service = await Session.withApiKey(connect, secret);
  assert.equal((await whoAmI(service)).serviceAccount?.id, serviceAccount?.id);
});

test("a call of an ended session is unauthenticated", async () => {
  const { session } = await signUp();
  await session.signOut();
  const error = await errorOf(whoAmI(session));
  assert.equal(error.code, Code.Unauthenticated);
  assert.notEqual(reason(error), "");
});

test("errors contain a reason and the violations", async () => {
  const { session } = await signUp();
  const users = createClient(UserService, session.transport);
  const error = await errorOf(users.createUser({ email: "grace", requestId: "not an id" }));
  assert.equal(reason(error), "INVALID_FIELDS");
  assert.deepEqual([...violations(error).keys()].sort(), ["email", "request_id"]);
});

test("the example allows one check and denies the other", async () => {
  const example = fileURLToPath(new URL("../src/first.js", import.meta.url));
  const { stdout } = await promisify(execFile)(process.execPath, [example]);
  assert.match(stdout, /invoice:read in eu: allowed \(GRANTED\)/);
  assert.match(stdout, /invoice:read in asia: denied \(SCOPE_MISMATCH\)/);
  assert.match(stdout, /refused \(INVALID_FIELDS\): email:/);
});
