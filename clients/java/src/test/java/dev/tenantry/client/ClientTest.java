package dev.tenantry.client;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import dev.tenantry.v1.AuthServiceGrpc;
import dev.tenantry.v1.CreateApiKeyRequest;
import dev.tenantry.v1.CreateServiceAccountRequest;
import dev.tenantry.v1.CreateUserRequest;
import dev.tenantry.v1.RegisterRequest;
import dev.tenantry.v1.ServiceAccountServiceGrpc;
import dev.tenantry.v1.UserServiceGrpc;
import dev.tenantry.v1.WhoAmIRequest;
import dev.tenantry.v1.WhoAmIResponse;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.MetadataUtils;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;

/** Tests against the server at TENANTRY_ADDR. */
class ClientTest {
  private static final String EMAIL = "ada@acme.test";
  private static final String PASSWORD = "correct horse battery";

  private final String slug = "acme-" + UUID.randomUUID().toString().substring(0, 8);
  private ManagedChannel channel;
  private Session session;

  @BeforeEach
  void signUp() {
    var address = System.getenv("TENANTRY_ADDR");
    channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    AuthServiceGrpc.newBlockingStub(channel)
        .register(
            RegisterRequest.newBuilder()
                .setEmail(EMAIL)
                .setPassword(PASSWORD)
                .setOrganizationName("Acme")
                .setOrganizationSlug(slug)
                .build());
    session = Session.signIn(channel, slug, EMAIL, PASSWORD);
  }

  @AfterEach
  void disconnect() {
    channel.shutdownNow();
  }

  @Test
  void callsAreMadeAsTheUserInItsTenant() {
    var me = whoAmI();
    assertEquals(EMAIL, me.getUser().getEmail());
    assertEquals(slug, me.getTenant().getSlug());
    var secondTenant = new Metadata();
    secondTenant.put(Metadata.Key.of("x-tenant-id", Metadata.ASCII_STRING_MARSHALLER), "another");
    var stub =
        session
            .as(AuthServiceGrpc.newBlockingStub(channel))
            .withInterceptors(MetadataUtils.newAttachHeadersInterceptor(secondTenant));
    var request = WhoAmIRequest.getDefaultInstance();
    var error = assertThrows(StatusRuntimeException.class, () -> stub.whoAmI(request));
    assertEquals(Code.INVALID_ARGUMENT, error.getStatus().getCode());
  }

  @Test
  void manyCallsWithAnInvalidTokenRefreshOnce() throws Exception {
    var refreshToken = session.refreshToken();
    session.storeTokens("invalid", refreshToken);
    var threads = Executors.newFixedThreadPool(16);
    var calls = new ArrayList<Future<WhoAmIResponse>>();
    for (var i = 0; i < 16; i++) {
      calls.add(threads.submit(this::whoAmI));
    }
    for (var call : calls) {
      assertEquals(EMAIL, call.get().getUser().getEmail());
    }
    threads.shutdown();
    assertNotEquals(refreshToken, session.refreshToken());
    // If a refresh token had been used twice, the session would have ended.
    assertEquals(EMAIL, whoAmI().getUser().getEmail());
  }

  /** N20: the request id of a refresh is the hash of the refresh token. */
  @Test
  void twoProcessesWithTheSameRefreshTokenGetTheSameTokens() {
    var otherSession = Session.signIn(channel, slug, EMAIL, PASSWORD);
    var refreshToken = session.refreshToken();
    session.storeTokens("invalid", refreshToken);
    otherSession.storeTokens("invalid", refreshToken);
    assertEquals(EMAIL, whoAmI().getUser().getEmail());
    var nextRefreshToken = session.refreshToken();
    session = otherSession;
    assertEquals(EMAIL, whoAmI().getUser().getEmail());
    assertEquals(nextRefreshToken, session.refreshToken());
  }

  @Test
  void aServiceAccountSignsInWithItsApiKey() {
    var accounts = session.as(ServiceAccountServiceGrpc.newBlockingStub(channel));
    var account =
        accounts
            .createServiceAccount(
                CreateServiceAccountRequest.newBuilder().setName("billing").build())
            .getServiceAccount()
            .getId();
    var secret =
        accounts
            .createApiKey(CreateApiKeyRequest.newBuilder().setServiceAccountId(account).build())
            .getSecret();
    session = Session.withApiKey(channel, secret);
    assertEquals(account, whoAmI().getServiceAccount().getId());
    // A service account has no refresh token. The session gets the next token with the API key.
    session.storeTokens("invalid", "");
    assertEquals(account, whoAmI().getServiceAccount().getId());
  }

  @Test
  void aCallOfAnEndedSessionIsUnauthenticated() {
    session.signOut();
    var error = assertThrows(StatusRuntimeException.class, this::whoAmI);
    assertEquals(Code.UNAUTHENTICATED, error.getStatus().getCode());
    assertFalse(Details.reason(error).isEmpty());
  }

  @Test
  void errorsContainAReasonAndTheViolations() {
    var users = session.as(UserServiceGrpc.newBlockingStub(channel));
    var request =
        CreateUserRequest.newBuilder().setEmail("grace").setRequestId("not an id").build();
    var error = assertThrows(StatusRuntimeException.class, () -> users.createUser(request));
    assertEquals("INVALID_FIELDS", Details.reason(error));
    assertEquals(Set.of("email", "request_id"), Details.violations(error).keySet());
  }

  @Test
  void theExampleAllowsOneCheckAndDeniesTheOther() {
    var output = new ByteArrayOutputStream();
    First.run(channel, new PrintStream(output, true, StandardCharsets.UTF_8));
    var text = output.toString(StandardCharsets.UTF_8);
    assertTrue(text.contains("invoice:read in eu: allowed (DECISION_REASON_GRANTED)"), text);
    assertTrue(text.contains("invoice:read in asia: denied (DECISION_REASON_SCOPE_MISMATCH)"), text);
    assertTrue(text.contains("refused (INVALID_FIELDS): email:"), text);
  }

  private WhoAmIResponse whoAmI() {
    var auth = session.as(AuthServiceGrpc.newBlockingStub(channel));
    return session.call(() -> auth.whoAmI(WhoAmIRequest.getDefaultInstance()));
  }
}
