import {
  type Client,
  Code,
  ConnectError,
  createClient,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";

import { reason } from "./details.js";
import { AuthService } from "./gen/tenantry/v1/auth_service_pb.js";

/** Creates a transport to a server. Each call passes the given interceptors first. */
export type Connect = (interceptors: Interceptor[]) => Transport;

/** Returns the options of a transport with these interceptors before the ones in the options. */
export function before<O extends { interceptors?: Interceptor[] }>(
  interceptors: Interceptor[],
  options: O,
): O {
  return { ...options, interceptors: [...interceptors, ...(options.interceptors ?? [])] };
}

type Auth = Client<typeof AuthService>;
type Tokens = { accessToken: string; refreshToken?: string };

/** Timeout of a call that gets tokens, in milliseconds. */
const tokenTimeout = { timeoutMs: 10_000 };

/**
 * The sign-in of a user or of a service account. Pass its `transport` to `createClient`. The
 * transport adds the access token and the tenant to each call, and gets the next token when the
 * server refuses the current one.
 */
export class Session {
  readonly transport: Transport;
  readonly #auth: Auth;
  #access = "";
  /** Gets the next tokens. */
  #next: () => Promise<Tokens>;
  /** The last token that the server refused. */
  #refused: string | undefined;
  /** The refresh in progress: all calls wait for the same one. */
  #refreshing: Promise<void> | undefined;

  private constructor(
    connect: Connect,
    inTenant: Interceptor[],
    begin: (auth: Auth) => Promise<Tokens>,
  ) {
    this.#auth = createClient(AuthService, connect(inTenant));
    this.#next = () => begin(this.#auth);
    this.transport = connect([...inTenant, this.#asWhoSignedIn]);
  }

  /** Signs in a user to the tenant with this slug. */
  static async signIn(
    connect: Connect,
    tenant: string,
    email: string,
    password: string,
  ): Promise<Session> {
    const inTenant: Interceptor = (next) => (request) => {
      request.header.append("x-organization-slug", tenant);
      return next(request);
    };
    const login = (auth: Auth) => auth.login({ email, password }, tokenTimeout);
    const session = new Session(connect, [inTenant], login);
    session.#keep(await session.#next());
    return session;
  }

  /** Signs in a service account with the secret of one of its API keys. */
  static async withApiKey(connect: Connect, secret: string): Promise<Session> {
    const credential = { case: "apiKey" as const, value: secret };
    const session = new Session(connect, [], (auth) =>
      auth.exchangeApiKey({ credential }, tokenTimeout),
    );
    session.#keep(await session.#next());
    return session;
  }

  /** Ends a user's session. */
  async signOut(): Promise<void> {
    await createClient(AuthService, this.transport).logout({});
  }

  /**
   * Adds the access token to a call. A call that is Unauthenticated is repeated once with the next
   * token. A stream that ends must be opened again by the caller, and then uses the next token.
   */
  readonly #asWhoSignedIn: Interceptor = (next) => async (request) => {
    const as = (token: string) => {
      request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    };
    let used = this.#access;
    if (request.stream && used === this.#refused) {
      used = await this.#successor(used);
    }
    try {
      const answer = await as(used);
      return answer.stream ? { ...answer, message: this.#messages(answer.message, used) } : answer;
    } catch (error) {
      this.#note(error, used);
      if (request.stream || !isUnauthenticated(error)) {
        throw error;
      }
    }
    return as(await this.#successor(used));
  };

  async *#messages<M>(messages: AsyncIterable<M>, token: string): AsyncGenerator<M> {
    try {
      yield* messages;
    } catch (error) {
      this.#note(error, token);
      throw error;
    }
  }

  #note(error: unknown, token: string): void {
    if (isUnauthenticated(error)) {
      this.#refused = token;
    }
  }

  /**
   * Returns the token after the used one. Only one refresh runs at a time: a refresh token works
   * once, and a second use ends the session.
   */
  async #successor(used: string): Promise<string> {
    if (this.#access === used) {
      this.#refreshing ??= this.#takeNext().finally(() => (this.#refreshing = undefined));
      await this.#refreshing;
    }
    return this.#access;
  }

  async #takeNext(): Promise<void> {
    try {
      this.#keep(await this.#next());
    } catch (error) {
      // An error without a reason does not come from Tenantry, so the response may be lost.
      if (reason(error) !== "" && ConnectError.from(error).code !== Code.Unavailable) {
        throw error;
      }
      this.#keep(await this.#next());
    }
  }

  #keep(tokens: Tokens): void {
    this.#access = tokens.accessToken;
    if (tokens.refreshToken !== undefined) {
      const refreshToken = tokens.refreshToken;
      this.#next = async () => {
        const request = { refreshToken, requestId: await requestId(refreshToken) };
        return this.#auth.refresh(request, tokenTimeout);
      };
    }
  }
}

/**
 * Returns the hash of the refresh token. With it, a refresh whose response was lost can be repeated
 * and returns the same pair of tokens, also for another tab or process that has the same token.
 */
async function requestId(refreshToken: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(refreshToken));
  const base64 = btoa(String.fromCharCode(...new Uint8Array(digest)));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function isUnauthenticated(error: unknown): boolean {
  return ConnectError.from(error).code === Code.Unauthenticated;
}
