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
 * The sign-in of a user, or of a service account. {@link #as} has a stub's calls made as who
 * signed in, in its tenant; {@link #call} makes one once more with the next access token when the first has ended. Many
 * threads may use it at once.
 */
public final class Session extends CallCredentials {
  private static final Metadata.Key<String> AUTHORIZATION = key("authorization");
  private static final Metadata.Key<String> TENANT = key("x-organization-slug");

  /** What taking tokens may take. */
  private static final Duration PATIENCE = Duration.ofSeconds(10);

  private final Channel channel;
  private final ClientInterceptor inTenant;
  private final AuthServiceBlockingStub auth;

  /** A service account's; a user has none. */
  private final String apiKey;

  private volatile String access;

  /**
   * Takes a user's next pair of tokens. With its id it may be made again for as long as its reply has
   * not come.
   */
  private RefreshRequest refresh;

  private Session(Channel channel, Metadata metadata, String apiKey) {
    this.channel = channel;
    this.apiKey = apiKey;
    this.inTenant = MetadataUtils.newAttachHeadersInterceptor(metadata);
    this.auth = AuthServiceGrpc.newBlockingStub(channel).withInterceptors(inTenant);
  }

  /** Signs a user in to the tenant with this slug. */
  public static Session signIn(Channel channel, String tenant, String email, String password) {
    var metadata = new Metadata();
    metadata.put(TENANT, tenant);
    var session = new Session(channel, metadata, null);
    var request = LoginRequest.newBuilder().setEmail(email).setPassword(password).build();
    var login = session.auth.withDeadlineAfter(PATIENCE).login(request);
    session.keep(login.getAccessToken(), login.getRefreshToken());
    return session;
  }

  /** Signs a service account in, by the secret of one of its keys, which says whose it is. */
  public static Session withApiKey(Channel channel, String secret) {
    var session = new Session(channel, new Metadata(), secret);
    session.takeNext();
    return session;
  }

  /** The stub, its calls made as who signed in. */
  public <S extends AbstractStub<S>> S as(S stub) {
    return stub.withInterceptors(inTenant).withCallCredentials(this);
  }

  /** Makes a call; one that is unauthenticated once more, with the next token. */
  public <T> T call(Supplier<T> call) {
    var used = access;
    try {
      return call.get();
    } catch (StatusRuntimeException error) {
      if (error.getStatus().getCode() != Code.UNAUTHENTICATED) {
        throw error;
      }
    }
    takeNext(used);
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
    metadata.put(AUTHORIZATION, "Bearer " + access);
    applier.apply(metadata);
  }

  /**
   * Takes the next token, unless another call did so since this one was used: a refresh
   * token works once, and using it twice would end the session.
   */
  private synchronized void takeNext(String used) {
    if (!access.equals(used)) {
      return;
    }
    try {
      takeNext();
    } catch (StatusRuntimeException error) {
      if (error.getStatus().getCode() != Code.UNAVAILABLE) {
        throw error;
      }
      takeNext();
    }
  }

  private synchronized void takeNext() {
    var patient = auth.withDeadlineAfter(PATIENCE);
    if (apiKey != null) {
      var request = ExchangeApiKeyRequest.newBuilder().setApiKey(apiKey).build();
      access = patient.exchangeApiKey(request).getAccessToken();
      return;
    }
    var next = patient.refresh(refresh);
    keep(next.getAccessToken(), next.getRefreshToken());
  }

  /** What the session goes on with. */
  synchronized void keep(String access, String refresh) {
    this.access = access;
    var id = requestId(refresh);
    this.refresh = RefreshRequest.newBuilder().setRefreshToken(refresh).setRequestId(id).build();
  }

  /**
   * The token's hash: a refresh may be made again when its reply got lost, also by another process
   * that has the same token, and gets the same pair.
   */
  static String requestId(String refresh) {
    try {
      var digest = MessageDigest.getInstance("SHA-256").digest(refresh.getBytes(UTF_8));
      return Base64.getUrlEncoder().withoutPadding().encodeToString(digest);
    } catch (NoSuchAlgorithmException impossible) {
      // Every Java platform must have it.
      throw new IllegalStateException(impossible);
    }
  }

  /** The refresh token that comes next. */
  synchronized String refreshToken() {
    return refresh.getRefreshToken();
  }

  private static Metadata.Key<String> key(String name) {
    return Metadata.Key.of(name, Metadata.ASCII_STRING_MARSHALLER);
  }
}
