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
		t.Fatal("TENANTRY_ADDR must name a running server: make test-clients")
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
		t.Fatalf("somebody else: %v", me)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-tenant-id", "another")
	if _, err = whoAmI(ctx, session); status.Code(err) != codes.InvalidArgument {
		t.Fatalf("two tenants were named, and the answer is %v", err)
	}
}

func TestManyCallsWithAnEndedTokenRefreshOnce(t *testing.T) {
	session := signUp(t)
	refresh := session.refresh
	session.access = "ended"
	var calls sync.WaitGroup
	for range 16 {
		calls.Go(func() {
			if _, err := whoAmI(t.Context(), session); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	if session.refresh == refresh {
		t.Fatal("the tokens are the old ones")
	}
	// If a refresh token had been used twice, the session would have ended.
	if _, err := whoAmI(t.Context(), session); err != nil {
		t.Fatal(err)
	}
}

// N20
func TestTwoProcessesThatHaveOneRefreshTokenGetTheSamePair(t *testing.T) {
	one := signUp(t)
	other := &Session{conn: one.conn, auth: one.auth, tenant: one.tenant}
	other.keep("ended", one.refresh.GetRefreshToken())
	one.access = "ended"
	for _, session := range []*Session{one, other} {
		if _, err := whoAmI(t.Context(), session); err != nil {
			t.Fatal(err)
		}
	}
	if one.access != other.access {
		t.Fatal("they have different tokens")
	}
}

func TestARefreshWhoseReplyIsLostIsMadeAgain(t *testing.T) {
	lost := 2
	loses := func(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		err := call(ctx, method, request, reply, conn, opts...)
		if method == pb.AuthService_Refresh_FullMethodName && lost > 0 {
			lost--
			return status.Error(codes.Unavailable, "the reply is lost")
		}
		return err
	}
	session := signUp(t, loses)
	session.access = "ended"
	if _, err := whoAmI(t.Context(), session); status.Code(err) != codes.Unavailable {
		t.Fatalf("the answer is %v", err)
	}
	if _, err := whoAmI(t.Context(), session); err != nil {
		t.Fatal(err)
	}
}

func TestAStreamThatIsOpenedAgainHasTheNextToken(t *testing.T) {
	session := signUp(t)
	session.access = "ended"
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
		t.Fatalf("the answer is %v", err)
	}
	if err := watch(); err != nil {
		t.Fatal(err)
	}
}

func TestAServiceSignsInByItsKey(t *testing.T) {
	admin := signUp(t)
	accounts := pb.NewServiceAccountServiceClient(admin)
	made, err := accounts.CreateServiceAccount(t.Context(), &pb.CreateServiceAccountRequest{Name: "billing"})
	if err != nil {
		t.Fatal(err)
	}
	account := made.GetServiceAccount().GetId()
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
		service.access = "ended"
	}
}

func TestASessionThatEndedIsUnauthenticated(t *testing.T) {
	session := signUp(t)
	if err := session.SignOut(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := whoAmI(t.Context(), session)
	if status.Code(err) != codes.Unauthenticated || Reason(err) == "" {
		t.Fatalf("the answer is %v", err)
	}
}

func TestErrorsSayWhatIsWrong(t *testing.T) {
	session := signUp(t)
	request := &pb.CreateUserRequest{Email: "grace", RequestId: "not an id"}
	_, err := pb.NewUserServiceClient(session).CreateUser(t.Context(), request)
	violations := Violations(err)
	if Reason(err) != "INVALID_FIELDS" || len(violations) != 2 || violations["email"] == "" {
		t.Fatalf("%v: %v", Reason(err), violations)
	}
}
