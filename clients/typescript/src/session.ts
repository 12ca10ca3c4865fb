import {
  type Client,
  Code,
  ConnectError,
  createClient,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";

import { AuthService } from "./gen/tenantry/v1/auth_service_pb.js";

/** Makes the way to a server, on which each call passes these first. */
export type Connect = (interceptors: Interceptor[]) => Transport;

/** A transport's options, with what each call passes before what they name themselves. */
export function before<O extends { interceptors?: Interceptor[] }>(
  interceptors: Interceptor[],
  options: O,
): O {
  return { ...options, interceptors: [...interceptors, ...(options.interceptors ?? [])] };
}

/**
 * A user's sign-in. Give its `transport` to `createClient`: the access token and the tenant
 * go with each call, and the next pair of tokens is taken when the first has ended.
 */
export class Session {
  readonly transport: Transport;
  readonly #auth: Client<typeof AuthService>;
  #access = "";
  #refresh = "";
  /** The refresh that is under way: all calls wait for the same. */
  #refreshing: Promise<void> | undefined;

  private constructor(connect: Connect, tenant: string) {
    const inTenant: Interceptor = (next) => (request) => {
      request.header.append("x-organization-slug", tenant);
      return next(request);
    };
    this.#auth = createClient(AuthService, connect([inTenant]));
    this.transport = connect([inTenant, this.#asUser]);
  }

  /** Signs a user in to the tenant with this slug. */
  static async signIn(
    connect: Connect,
    tenant: string,
    email: string,
    password: string,
  ): Promise<Session> {
    const session = new Session(connect, tenant);
    session.#keep(await session.#auth.login({ email, password }));
    return session;
  }

  /** Ends the session. */
  async signOut(): Promise<void> {
    await createClient(AuthService, this.transport).logout({});
  }

  /**
   * Makes a call as the user; one that is unauthenticated once more, with the next token.
   * A stream that ends is the caller's to open again, from where it was.
   */
  readonly #asUser: Interceptor = (next) => async (request) => {
    const used = this.#access;
    request.header.set("authorization", `Bearer ${used}`);
    try {
      return await next(request);
    } catch (error) {
      if (request.stream || ConnectError.from(error).code !== Code.Unauthenticated) {
        throw error;
      }
    }
    // A refresh token works once, and using it twice would end the session.
    if (this.#access === used) {
      this.#refreshing ??= this.#takeNext().finally(() => (this.#refreshing = undefined));
      await this.#refreshing;
    }
    request.header.set("authorization", `Bearer ${this.#access}`);
    return next(request);
  };

  async #takeNext(): Promise<void> {
    // With its id the same request may be made again, should the reply get lost.
    const request = { refreshToken: this.#refresh, requestId: crypto.randomUUID() };
    try {
      this.#keep(await this.#auth.refresh(request));
    } catch (error) {
      if (ConnectError.from(error).code !== Code.Unavailable) {
        throw error;
      }
      this.#keep(await this.#auth.refresh(request));
    }
  }

  #keep(tokens: { accessToken: string; refreshToken: string }): void {
    this.#access = tokens.accessToken;
    this.#refresh = tokens.refreshToken;
  }
}
