// Package tenantry signs in to Tenantry and calls it. It adds the access token and the tenant to
// each call, and gets the next token when the server refuses the current one.
package tenantry

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "tenantry/clients/go/gen/tenantry/v1"
)

// Timeout of getting the next token. It applies in addition to the deadline of the waiting call.
const tokenTimeout = 10 * time.Second

// Session is the sign-in of a user or of a service account. It is a connection for the generated
// clients, and adds its access token to their calls: pb.NewPermissionServiceClient(session). It is
// safe for concurrent use.
type Session struct {
	conn *grpc.ClientConn
	auth pb.AuthServiceClient
	// The slug of a user's tenant; empty for a service account, whose key contains the tenant.
	tenant string
	// The secret of a service account's API key; empty for a user.
	apiKey string

	mu     sync.Mutex
	access string
	// The request that gets a user's next pair of tokens.
	refresh *pb.RefreshRequest
	// The access token that the server has refused for a stream.
	refused string
}

var _ grpc.ClientConnInterface = (*Session)(nil)

// SignIn signs in a user to the tenant with this slug.
func SignIn(ctx context.Context, conn *grpc.ClientConn, tenant, email, password string) (*Session, error) {
	auth := pb.NewAuthServiceClient(conn)
	login, err := auth.Login(inTenant(ctx, tenant), &pb.LoginRequest{Email: email, Password: password})
	if err != nil {
		return nil, err
	}
	session := &Session{conn: conn, auth: auth, tenant: tenant}
	session.keep(login.GetAccessToken(), login.GetRefreshToken())
	return session, nil
}

// WithAPIKey signs in a service account with the secret of one of its API keys.
func WithAPIKey(ctx context.Context, conn *grpc.ClientConn, secret string) (*Session, error) {
	session := &Session{conn: conn, auth: pb.NewAuthServiceClient(conn), apiKey: secret}
	if err := session.take(ctx); err != nil {
		return nil, err
	}
	return session, nil
}

// Invoke makes a call with the session's access token. If the call is refused with Unauthenticated,
// Invoke gets the next token and repeats the call once.
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

// NewStream opens a stream with the session's access token. If a stream ends with Unauthenticated,
// the caller must open it again from its last position; NewStream then uses the next token.
func (s *Session) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	token, err := s.unrefused(ctx)
	if err != nil {
		return nil, err
	}
	opened, err := s.conn.NewStream(s.as(ctx, token), desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &stream{ClientStream: opened, session: s, token: token}, nil
}

// A stream that records in its session when its token is refused.
type stream struct {
	grpc.ClientStream
	session *Session
	token   string
}

func (s *stream) RecvMsg(message any) error {
	err := s.ClientStream.RecvMsg(message)
	if status.Code(err) == codes.Unauthenticated {
		s.session.mu.Lock()
		defer s.session.mu.Unlock()
		s.session.refused = s.token
	}
	return err
}

// SignOut ends a user's session.
func (s *Session) SignOut(ctx context.Context) error {
	_, err := pb.NewAuthServiceClient(s).Logout(ctx, &pb.LogoutRequest{})
	return err
}

func (s *Session) token() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.access
}

// unrefused returns a token that the server has not refused for a stream.
func (s *Session) unrefused(ctx context.Context) (string, error) {
	s.mu.Lock()
	token, refused := s.access, s.refused
	s.mu.Unlock()
	if token != refused {
		return token, nil
	}
	return s.successor(ctx, token)
}

// successor returns the token after the used one. It gets the next token unless another call has
// done so: a refresh token works once, and a second use ends the session.
func (s *Session) successor(ctx context.Context, used string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.access != used {
		return s.access, nil
	}
	err := s.take(ctx)
	if status.Code(err) == codes.Unavailable {
		err = s.take(ctx)
	}
	return s.access, err
}

func (s *Session) take(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	if s.apiKey != "" {
		key := &pb.ExchangeApiKeyRequest_ApiKey{ApiKey: s.apiKey}
		next, err := s.auth.ExchangeApiKey(ctx, &pb.ExchangeApiKeyRequest{Credential: key})
		if err == nil {
			s.access = next.GetAccessToken()
		}
		return err
	}
	next, err := s.auth.Refresh(ctx, s.refresh)
	if err == nil {
		s.keep(next.GetAccessToken(), next.GetRefreshToken())
	}
	return err
}

func (s *Session) keep(access, refresh string) {
	s.access = access
	s.refresh = &pb.RefreshRequest{RefreshToken: refresh, RequestId: requestID(refresh)}
}

// requestID is the hash of the refresh token. With it, a refresh whose response was lost can be
// repeated and returns the same pair of tokens, also for another process that has the same token.
func requestID(refresh string) string {
	sum := sha256.Sum256([]byte(refresh))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func (s *Session) as(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(inTenant(ctx, s.tenant), "authorization", "Bearer "+token)
}

func inTenant(ctx context.Context, tenant string) context.Context {
	if tenant == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "x-organization-slug", tenant)
}
