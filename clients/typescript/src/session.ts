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

/** Makes the way to a server, on which each call passes these first. */
export type Connect = (interceptors: Interceptor[]) => Transport;

/** A transport's options, with what each call passes before what they name themselves. */
export function before<O extends { interceptors?: Interceptor[] }>(
  interceptors: Interceptor[],
  options: O,
): O {
  return { ...options, interceptors: [...interceptors, ...(options.interceptors ?? [])] };
}

type Auth = Client<typeof AuthService>;
type Tokens = { accessToken: string; refreshToken?: string };

/** What taking tokens may take. */
const patience = { timeoutMs: 10_000 };

/**
 * The sign-in of a user, or of a service account. Give its `transport` to `createClient`: the
 * access token and the tenant go with each call, and the next token is taken when the first has
 * ended.
 */
export class Session {
  readonly transport: Transport;
  readonly #auth: Auth;
  #access = "";
  /** Takes the next tokens. */
  #next: () => Promise<Tokens>;
  /** The token that was refused last. */
  #refused: string | undefined;
  /** What takes the next token: all calls wait for the same. */
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

  /** Signs a user in to the tenant with this slug. */
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
    const login = (auth: Auth) => auth.login({ email, password }, patience);
    const session = new Session(connect, [inTenant], login);
    session.#keep(await session.#next());
    return session;
  }

  /** Signs a service account in, by the secret of one of its keys, which says whose it is. */
  static async withApiKey(connect: Connect, secret: string): Promise<Session> {
    const credential = { case: "apiKey" as const, value: secret };
    const session = new Session(connect, [], (auth) =>
      auth.exchangeApiKey({ credential }, patience),
    );
    session.#keep(await session.#next());
    return session;
  }

  /** Ends a user's session. */
  async signOut(): Promise<void> {
    await createClient(AuthService, this.transport).logout({});
  }

  /**
   * Makes a call as who signed in; one that is unauthenticated once more, with the next token. A
   * stream is the caller's to open again, from where it was: it then has the next token.
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

  /** A refresh token works once, and using it twice would end the session. */
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
      // Unless it is the server that says no, its answer got lost.
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
        return this.#auth.refresh(request, patience);
      };
    }
  }
}

/**
 * The token's hash: a refresh may be made again when its reply got lost, also by another tab or
 * process that has the same token, and gets the same pair.
 */
async function requestId(refreshToken: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(refreshToken));
  const base64 = btoa(String.fromCharCode(...new Uint8Array(digest)));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

function isUnauthenticated(error: unknown): boolean {
  return ConnectError.from(error).code === Code.Unauthenticated;
}
