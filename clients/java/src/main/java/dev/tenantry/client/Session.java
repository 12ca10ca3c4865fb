package dev.tenantry.client;

import static java.nio.charset.StandardCharsets.UTF_8;

import dev.tenantry.v1.AuthServiceGrpc;
import dev.tenantry.v1.AuthServiceGrpc.AuthServiceBlockingStub;
import dev.tenantry.v1.ExchangeApiKeyRequest;
import dev.tenantry.v1.LoginRequest;
import dev.tenantry.v1.LogoutRequest;
import dev.tenantry.v1.RefreshRequest;
import io.grpc.CallCredentials;
import io.grpc.Channel;
import io.grpc.ClientInterceptor;
import io.grpc.Metadata;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.AbstractStub;
import io.grpc.stub.MetadataUtils;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.time.Duration;
import java.util.Base64;
import java.util.concurrent.Executor;
import java.util.function.Supplier;

/**
 * The sign-in of a user or of a service account. {@link #as} returns a stub that adds the access
 * token and the tenant to its calls. {@link #call} makes a call, and repeats it once with the next
 * token if the server refuses the current token. A session is safe for use by many threads.
 */
public final class Session extends CallCredentials {
  private static final Metadata.Key<String> AUTHORIZATION = key("authorization");
  private static final Metadata.Key<String> TENANT = key("x-organization-slug");

  /** Timeout of a call that gets tokens. */
  private static final Duration TOKEN_TIMEOUT = Duration.ofSeconds(10);

  private final Channel channel;
  private final ClientInterceptor addTenant;
  private final AuthServiceBlockingStub auth;

  /** The secret of a service account's API key; null for a user. */
  private final String apiKey;

  private volatile String accessToken;

  /**
   * The request that gets a user's next pair of tokens. The request has an id, so it can be
   * repeated until a response arrives.
   */
  private RefreshRequest refreshRequest;

  private Session(Channel channel, Metadata metadata, String apiKey) {
    this.channel = channel;
    this.apiKey = apiKey;
    this.addTenant = MetadataUtils.newAttachHeadersInterceptor(metadata);
    this.auth = AuthServiceGrpc.newBlockingStub(channel).withInterceptors(addTenant);
  }

  /** Signs in a user to the tenant with this slug. */
  public static Session signIn(Channel channel, String tenant, String email, String password) {
    var metadata = new Metadata();
    metadata.put(TENANT, tenant);
    var session = new Session(channel, metadata, null);
    var request = LoginRequest.newBuilder().setEmail(email).setPassword(password).build();
    var login = session.auth.withDeadlineAfter(TOKEN_TIMEOUT).login(request);
    session.storeTokens(login.getAccessToken(), login.getRefreshToken());
    return session;
  }

  /** Signs in a service account with the secret of one of its API keys. */
  public static Session withApiKey(Channel channel, String secret) {
    var session = new Session(channel, new Metadata(), secret);
    session.fetchNextTokens();
    return session;
  }

  /** Returns a stub that adds the session's access token and tenant to each call. */
  public <S extends AbstractStub<S>> S as(S stub) {
    return stub.withInterceptors(addTenant).withCallCredentials(this);
  }

  /** Makes a call. If the call is UNAUTHENTICATED, repeats it once with the next token. */
  public <T> T call(Supplier<T> call) {
    var usedToken = accessToken;
    try {
      return call.get();
    } catch (StatusRuntimeException error) {
      if (error.getStatus().getCode() != Code.UNAUTHENTICATED) {
        throw error;
      }
    }
    fetchTokensAfter(usedToken);
    return call.get();
  }

  /** Ends a user's session. */
  public void signOut() {
    var stub = as(AuthServiceGrpc.newBlockingStub(channel));
    call(() -> stub.logout(LogoutRequest.getDefaultInstance()));
  }

  @Override
  public void applyRequestMetadata(RequestInfo info, Executor executor, MetadataApplier applier) {
    var metadata = new Metadata();
    metadata.put(AUTHORIZATION, "Bearer " + accessToken);
    applier.apply(metadata);
  }

  /**
   * Gets the token that follows the used token, unless another call has already got it: a refresh
   * token works once, and a second use ends the session.
   */
  private synchronized void fetchTokensAfter(String usedToken) {
    if (!accessToken.equals(usedToken)) {
      return;
    }
    try {
      fetchNextTokens();
    } catch (StatusRuntimeException error) {
      if (error.getStatus().getCode() != Code.UNAVAILABLE) {
        throw error;
      }
      fetchNextTokens();
    }
  }

  private synchronized void fetchNextTokens() {
    var stub = auth.withDeadlineAfter(TOKEN_TIMEOUT);
    if (apiKey != null) {
      var request = ExchangeApiKeyRequest.newBuilder().setApiKey(apiKey).build();
      accessToken = stub.exchangeApiKey(request).getAccessToken();
      return;
    }
    var next = stub.refresh(refreshRequest);
    storeTokens(next.getAccessToken(), next.getRefreshToken());
  }

  /** Stores the tokens for the next calls. */
  synchronized void storeTokens(String accessToken, String refreshToken) {
    this.accessToken = accessToken;
    this.refreshRequest =
        RefreshRequest.newBuilder()
            .setRefreshToken(refreshToken)
            .setRequestId(requestId(refreshToken))
            .build();
  }

  /**
   * Returns the hash of the refresh token. A repeated refresh with the same id returns the same
   * pair of tokens. So a refresh whose response was lost can be repeated, and two processes with
   * the same refresh token get the same pair.
   */
  static String requestId(String refreshToken) {
    try {
      var digest = MessageDigest.getInstance("SHA-256").digest(refreshToken.getBytes(UTF_8));
      return Base64.getUrlEncoder().withoutPadding().encodeToString(digest);
    } catch (NoSuchAlgorithmException impossible) {
      // Every Java platform must support SHA-256.
      throw new IllegalStateException(impossible);
    }
  }

  /** Returns the refresh token for the next refresh. */
  synchronized String refreshToken() {
    return refreshRequest.getRefreshToken();
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }
}
