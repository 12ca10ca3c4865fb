// Package tenantry signs in to Tenantry and calls it: the access token and the tenant go
// with each call, and the next pair of tokens is taken when the first has ended.
package tenantry

import (
	"context"
	"sync"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "tenantry/clients/go/gen/tenantry/v1"
)

// Session is a user's sign-in. It is a connection for the generated clients, whose calls
// are made as that user: pb.NewPermissionServiceClient(session). It may be used by many
// goroutines at once.
type Session struct {
	conn   *grpc.ClientConn
	auth   pb.AuthServiceClient
	tenant string

	mu      sync.Mutex
	access  string
	refresh string
}

var _ grpc.ClientConnInterface = (*Session)(nil)

// SignIn signs a user in to the tenant with this slug.
func SignIn(ctx context.Context, conn *grpc.ClientConn, tenant, email, password string) (*Session, error) {
	auth := pb.NewAuthServiceClient(conn)
	login, err := auth.Login(inTenant(ctx, tenant), &pb.LoginRequest{Email: email, Password: password})
	if err != nil {
		return nil, err
	}
	return &Session{
		conn:    conn,
		auth:    auth,
		tenant:  tenant,
		access:  login.GetAccessToken(),
		refresh: login.GetRefreshToken(),
	}, nil
}

// Invoke makes a call as the user. One that the server finds unauthenticated is made once
// more, with the next access token.
func (s *Session) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	token := s.token()
	err := s.conn.Invoke(s.as(ctx, token), method, args, reply, opts...)
	if status.Code(err) != codes.Unauthenticated {
		return err
	}
	if token, err = s.successor(ctx, token); err != nil {
		return err
	}
	return s.conn.Invoke(s.as(ctx, token), method, args, reply, opts...)
}

// NewStream opens a stream as the user. One that ends with Unauthenticated is the caller's
// to open again, from where it was.
func (s *Session) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	return s.conn.NewStream(s.as(ctx, s.token()), desc, method, opts...)
}

// SignOut ends the session.
func (s *Session) SignOut(ctx context.Context) error {
	_, err := pb.NewAuthServiceClient(s).Logout(ctx, &pb.LogoutRequest{})
	return err
}

func (s *Session) token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.access
}

// successor takes the next pair of tokens, unless another call did so since it used this
// token: a refresh token works once, and using it twice would end the session.
func (s *Session) successor(ctx context.Context, used string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.access != used {
		return s.access, nil
	}
	// With its id the same request may be made again, should the reply get lost.
	request := &pb.RefreshRequest{RefreshToken: s.refresh, RequestId: uuid.NewString()}
	next, err := s.auth.Refresh(ctx, request)
	if status.Code(err) == codes.Unavailable {
		next, err = s.auth.Refresh(ctx, request)
	}
	if err != nil {
		return "", err
	}
	s.access, s.refresh = next.GetAccessToken(), next.GetRefreshToken()
	return s.access, nil
}

func (s *Session) as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(inTenant(ctx, s.tenant), "authorization", "Bearer "+token)
}

func inTenant(ctx context.Context, tenant string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "x-organization-slug", tenant)
}
