package tenantry

import (
	"context"
	"os"
	"sync"
	"testing"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "tenantry/clients/go/gen/tenantry/v1"
)

const password = "correct horse battery"

// signUp registers a tenant on the server at TENANTRY_ADDR, and signs in its administrator.
func signUp(t *testing.T, interceptors ...grpc.UnaryClientInterceptor) *Session {
	t.Helper()
	address := os.Getenv("TENANTRY_ADDR")
	if address == "" {
		t.Fatal("TENANTRY_ADDR must be the address of a running server: use make test-clients")
	}
	conn, err := grpc.NewClient(address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithChainUnaryInterceptor(interceptors...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	tenant := "acme-" + uuid.NewString()[:8]
	_, err = pb.NewAuthServiceClient(conn).Register(t.Context(), &pb.RegisterRequest{
		Email: "ada@acme.test", Password: password, OrganizationName: "Acme", OrganizationSlug: tenant,
	})
	if err != nil {
		t.Fatal(err)
	}
	session, err := SignIn(t.Context(), conn, tenant, "ada@acme.test", password)
	if err != nil {
		t.Fatal(err)
	}
	return session
}

func whoAmI(ctx context.Context, session *Session) (*pb.WhoAmIResponse, error) {
	return pb.NewAuthServiceClient(session).WhoAmI(ctx, &pb.WhoAmIRequest{})
}

func TestCallsAreMadeAsTheUserInItsTenant(t *testing.T) {
	session := signUp(t)
	me, err := whoAmI(t.Context(), session)
	if err != nil {
		t.Fatal(err)
	}
	if me.GetUser().GetEmail() != "ada@acme.test" || me.GetTenant().GetSlug() != session.tenant {
		t.Fatalf("the caller is not the user who signed in: %v", me)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-tenant-id", "another")
	if _, err = whoAmI(ctx, session); status.Code(err) != codes.InvalidArgument {
		t.Fatalf("a call with two tenants must be InvalidArgument: %v", err)
	}
}

func TestManyCallsWithAnInvalidTokenRefreshOnce(t *testing.T) {
	session := signUp(t)
	refreshRequest := session.refreshRequest
	session.accessToken = "invalid"
	var calls sync.WaitGroup
	for range 16 {
		calls.Go(func() {
			if _, err := whoAmI(t.Context(), session); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if session.refreshRequest == refreshRequest {
		t.Fatal("the tokens were not refreshed")
	}
	// If a refresh token had been used twice, the session would have ended.
	if _, err := whoAmI(t.Context(), session); err != nil {
		t.Fatal(err)
	}
}

// N20: the request id of a refresh is the hash of the refresh token.
func TestTwoProcessesWithTheSameRefreshTokenGetTheSameTokens(t *testing.T) {
	first := signUp(t)
	second := &Session{conn: first.conn, auth: first.auth, tenant: first.tenant}
	second.storeTokens("invalid", first.refreshRequest.GetRefreshToken())
	first.accessToken = "invalid"
	for _, session := range []*Session{first, second} {
		if _, err := whoAmI(t.Context(), session); err != nil {
			t.Fatal(err)
		}
	}
	if first.accessToken != second.accessToken {
		t.Fatal("the two sessions have different tokens")
	}
}

func TestARefreshIsRepeatedAfterItsResponseWasLost(t *testing.T) {
	// A session tries a refresh twice, so a call fails only if two responses are lost.
	responsesToLose := 2
	loseResponse := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := call(ctx, method, request, reply, conn, opts...)
		if method == pb.AuthService_Refresh_FullMethodName && responsesToLose > 0 {
			responsesToLose--
			return status.Error(codes.Unavailable, "the response is lost")
		}
		return err
	}
	session := signUp(t, loseResponse)
	session.accessToken = "invalid"
	if _, err := whoAmI(t.Context(), session); status.Code(err) != codes.Unavailable {
		t.Fatalf("the call must be Unavailable: %v", err)
	}
	if _, err := whoAmI(t.Context(), session); err != nil {
		t.Fatal(err)
	}
}

func TestAStreamThatIsOpenedAgainUsesTheNextToken(t *testing.T) {
	session := signUp(t)
	session.accessToken = "invalid"
	watch := func() error {
		stream, err := pb.NewPermissionServiceClient(session).
			WatchPermissions(t.Context(), &pb.WatchPermissionsRequest{})
		if err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	if err := watch(); status.Code(err) != codes.Unauthenticated {
		t.Fatalf("the stream must end with Unauthenticated: %v", err)
	}
	if err := watch(); err != nil {
		t.Fatal(err)
	}
}

func TestAServiceAccountSignsInWithItsAPIKey(t *testing.T) {
	admin := signUp(t)
	accounts := pb.NewServiceAccountServiceClient(admin)
	created, err := accounts.CreateServiceAccount(t.Context(), &pb.CreateServiceAccountRequest{Name: "billing"})
	if err != nil {
		t.Fatal(err)
	}
	account := created.GetServiceAccount().GetId()
	key, err := accounts.CreateApiKey(t.Context(), &pb.CreateApiKeyRequest{ServiceAccountId: account})
	if err != nil {
		t.Fatal(err)
	}
	service, err := WithAPIKey(t.Context(), admin.conn, key.GetSecret())
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		me, err := whoAmI(t.Context(), service)
		if err != nil || me.GetServiceAccount().GetId() != account {
			t.Fatalf("%v: %v", me, err)
		}
		// The second call must get the next token with the API key.
		service.accessToken = "invalid"
	}
}

func TestACallOfAnEndedSessionIsUnauthenticated(t *testing.T) {
	session := signUp(t)
	if err := session.SignOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := whoAmI(t.Context(), session)
	if status.Code(err) != codes.Unauthenticated || Reason(err) == "" {
		t.Fatalf("the call must be Unauthenticated with a reason: %v", err)
	}
}

func TestErrorsContainAReasonAndTheViolations(t *testing.T) {
	session := signUp(t)
	request := &pb.CreateUserRequest{Email: "grace", RequestId: "not an id"}
	_, err := pb.NewUserServiceClient(session).CreateUser(t.Context(), request)
	violations := Violations(err)
	// The email and the request id violate their rules.
	if Reason(err) != "INVALID_FIELDS" || len(violations) != 2 || violations["email"] == "" {
		t.Fatalf("%v: %v", Reason(err), violations)
	}
}
