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

/** Creates a transport to a server. Each call passes these interceptors first. */
export type Connect = (interceptors: Interceptor[]) => Transport;

/** Adds these interceptors to a transport's options, before the interceptors in the options. */
export function withInterceptors<O extends { interceptors?: Interceptor[] }>(
  options: O,
  interceptors: Interceptor[],
): O {
  return { ...options, interceptors: [...interceptors, ...(options.interceptors ?? [])] };
}

type Auth = Client<typeof AuthService>;
type Tokens = { accessToken: string; refreshToken?: string };

/** Call options with the timeout of a call that gets tokens. */
const tokenCallOptions = { timeoutMs: 10_000 };

/**
 * The sign-in of a user or of a service account. Pass its `transport` to `createClient`. The
 * transport adds the access token and the tenant to each call, and gets the next token when the
 * server refuses the current token.
 */
export class Session {
  readonly transport: Transport;
  readonly #auth: Auth;
  #accessToken = "";
  /** Gets the next tokens. */
  #fetchTokens: () => Promise<Tokens>;
  /** The last access token that the server refused. */
  #refusedToken: string | undefined;
  /** The request for the next tokens that is in progress. All calls wait for this request. */
  #refreshing: Promise<void> | undefined;

  private constructor(
    connect: Connect,
    tenantInterceptors: Interceptor[],
    signIn: (auth: Auth) => Promise<Tokens>,
  ) {
    this.#auth = createClient(AuthService, connect(tenantInterceptors));
    this.#fetchTokens = () => signIn(this.#auth);
    this.transport = connect([...tenantInterceptors, this.#addToken]);
  }

  /** Signs in a user to the tenant with this slug. */
  static async signIn(
    connect: Connect,
    tenant: string,
    email: string,
    password: string,
  ): Promise<Session> {
    const addTenant: Interceptor = (next) => (request) => {
      request.header.append("x-organization-slug", tenant);
      return next(request);
    };
    const login = (auth: Auth) => auth.login({ email, password }, tokenCallOptions);
    const session = new Session(connect, [addTenant], login);
    session.#storeTokens(await session.#fetchTokens());
    return session;
  }

  /** Signs in a service account with the secret of one of its API keys. */
  static async withApiKey(connect: Connect, secret: string): Promise<Session> {
    const credential = { case: "apiKey" as const, value: secret };
    const session = new Session(connect, [], (auth) =>
      auth.exchangeApiKey({ credential }, tokenCallOptions),
    );
    session.#storeTokens(await session.#fetchTokens());
    return session;
  }

  /** Ends a user's session. */
  async signOut(): Promise<void> {
    await createClient(AuthService, this.transport).logout({});
  }

  /**
   * Adds the access token to a call. A call that is Unauthenticated is repeated once with the next
   * token. If a stream ends, the program must open a new stream, which then uses the next token.
   */
  readonly #addToken: Interceptor = (next) => async (request) => {
    const send = (token: string) => {
      request.header.set("authorization", `Bearer ${token}`);
      return next(request);
    };
    let usedToken = this.#accessToken;
    if (request.stream && usedToken === this.#refusedToken) {
      usedToken = await this.#fetchTokenAfter(usedToken);
    }
    try {
      const response = await send(usedToken);
      return response.stream
        ? { ...response, message: this.#watchMessages(response.message, usedToken) }
        : response;
    } catch (error) {
      this.#noteIfRefused(error, usedToken);
      if (request.stream || !isUnauthenticated(error)) {
        throw error;
      }
    }
    return send(await this.#fetchTokenAfter(usedToken));
  };

  /** Passes the messages of a stream on, and notes if the stream ends because of its token. */
  async *#watchMessages<M>(messages: AsyncIterable<M>, token: string): AsyncGenerator<M> {
    try {
      yield* messages;
    } catch (error) {
      this.#noteIfRefused(error, token);
      throw error;
    }
  }

  #noteIfRefused(error: unknown, token: string): void {
    if (isUnauthenticated(error)) {
      this.#refusedToken = token;
    }
  }

  /**
   * Returns the token that follows the used token. Only one refresh runs at a time: a refresh token
   * works once, and a second use ends the session.
   */
  async #fetchTokenAfter(usedToken: string): Promise<string> {
    if (this.#accessToken === usedToken) {
      this.#refreshing ??= this.#fetchNextTokens().finally(() => (this.#refreshing = undefined));
      await this.#refreshing;
    }
    return this.#accessToken;
  }

  async #fetchNextTokens(): Promise<void> {
    try {
      this.#storeTokens(await this.#fetchTokens());
    } catch (error) {
      // An error without a reason does not come from Tenantry, so the response may be lost.
      if (reason(error) !== "" && ConnectError.from(error).code !== Code.Unavailable) {
        throw error;
      }
      this.#storeTokens(await this.#fetchTokens());
    }
  }

  #storeTokens(tokens: Tokens): void {
    this.#accessToken = tokens.accessToken;
    if (tokens.refreshToken !== undefined) {
      const refreshToken = tokens.refreshToken;
      this.#fetchTokens = async () => {
        const request = { refreshToken, requestId: await requestId(refreshToken) };
        return this.#auth.refresh(request, tokenCallOptions);
      };
    }
  }
}

/**
 * Returns the hash of the refresh token. A repeated refresh with the same id returns the same pair
 * of tokens. So a refresh whose response was lost can be repeated, and two tabs or processes with
 * the same refresh token get the same pair.
 */
async function requestId(refreshToken: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(refreshToken));
  const base64 = btoa(String.fromCharCode(...new Uint8Array(digest)));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function isUnauthenticated(error: unknown): boolean {
  return ConnectError.from(error).code === Code.Unauthenticated;
}
