// Package tenantry signs in to Tenantry and makes calls. It adds the access token and the tenant to
// each call, and gets the next token when the server refuses the current token.
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

// Timeout for getting the next token. It applies in addition to the deadline of the waiting call.
const tokenTimeout = 10 * time.Second

// Session is the sign-in of a user or of a service account. Pass it as the connection to the
// generated clients: pb.NewPermissionServiceClient(session). The session adds its access token to
// their calls. It is safe for concurrent use.
type Session struct {
	conn *grpc.ClientConn
	auth pb.AuthServiceClient
	// The slug of a user's tenant; empty for a service account, whose key contains the tenant.
	tenant string
	// The secret of a service account's API key; empty for a user.
	apiKey string

	mu          sync.Mutex
	accessToken string
	// The request that gets a user's next pair of tokens.
	refreshRequest *pb.RefreshRequest
	// The last access token that the server refused for a stream.
	refusedToken string
}

var _ grpc.ClientConnInterface = (*Session)(nil)

// SignIn signs in a user to the tenant with this slug.
func SignIn(ctx context.Context, conn *grpc.ClientConn, tenant, email, password string) (*Session, error) {
	auth := pb.NewAuthServiceClient(conn)
	login, err := auth.Login(withTenant(ctx, tenant), &pb.LoginRequest{Email: email, Password: password})
	if err != nil {
		return nil, err
	}
	session := &Session{conn: conn, auth: auth, tenant: tenant}
	session.storeTokens(login.GetAccessToken(), login.GetRefreshToken())
	return session, nil
}

// WithAPIKey signs in a service account with the secret of one of its API keys.
func WithAPIKey(ctx context.Context, conn *grpc.ClientConn, secret string) (*Session, error) {
	session := &Session{conn: conn, auth: pb.NewAuthServiceClient(conn), apiKey: secret}
	if err := session.fetchNextToken(ctx); err != nil {
		return nil, err
	}
	return session, nil
}

// Invoke makes a call with the session's access token. If the call is refused with Unauthenticated,
// Invoke gets the next token and repeats the call once.
func (s *Session) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	token := s.currentToken()
	err := s.conn.Invoke(s.withToken(ctx, token), method, args, reply, opts...)
	if status.Code(err) != codes.Unauthenticated {
		return err
	}
	if token, err = s.fetchTokenAfter(ctx, token); err != nil {
		return err
	}
	return s.conn.Invoke(s.withToken(ctx, token), method, args, reply, opts...)
}

// NewStream opens a stream with the session's access token. If a stream ends with Unauthenticated,
// the program must open a new stream from the last position; NewStream then uses the next token.
func (s *Session) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	token, err := s.unrefusedToken(ctx)
	if err != nil {
		return nil, err
	}
	openedStream, err := s.conn.NewStream(s.withToken(ctx, token), desc, method, opts...)
	if err != nil {
		return nil, err
	}
	return &stream{ClientStream: openedStream, session: s, token: token}, nil
}

// A stream that records in its session that the server refused its token.
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
		s.session.refusedToken = s.token
	}
	return err
}

// SignOut ends a user's session.
func (s *Session) SignOut(ctx context.Context) error {
	_, err := pb.NewAuthServiceClient(s).Logout(ctx, &pb.LogoutRequest{})
	return err
}

func (s *Session) currentToken() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accessToken
}

// unrefusedToken returns a token that the server has not refused for a stream.
func (s *Session) unrefusedToken(ctx context.Context) (string, error) {
	s.mu.Lock()
	token, refusedToken := s.accessToken, s.refusedToken
	s.mu.Unlock()
	if token != refusedToken {
		return token, nil
	}
	return s.fetchTokenAfter(ctx, token)
}

// fetchTokenAfter returns the token that follows usedToken. It gets the next token, unless
// another call has already got it: a refresh token works once, and a second use ends the session.
func (s *Session) fetchTokenAfter(ctx context.Context, usedToken string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accessToken != usedToken {
		return s.accessToken, nil
	}
	err := s.fetchNextToken(ctx)
	if status.Code(err) == codes.Unavailable {
		err = s.fetchNextToken(ctx)
	}
	return s.accessToken, err
}

func (s *Session) fetchNextToken(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tokenTimeout)
	defer cancel()
	if s.apiKey != "" {
		key := &pb.ExchangeApiKeyRequest_ApiKey{ApiKey: s.apiKey}
		next, err := s.auth.ExchangeApiKey(ctx, &pb.ExchangeApiKeyRequest{Credential: key})
		if err == nil {
			s.accessToken = next.GetAccessToken()
		}
		return err
	}
	next, err := s.auth.Refresh(ctx, s.refreshRequest)
	if err == nil {
		s.storeTokens(next.GetAccessToken(), next.GetRefreshToken())
	}
	return err
}

func (s *Session) storeTokens(accessToken, refreshToken string) {
	s.accessToken = accessToken
	s.refreshRequest = &pb.RefreshRequest{RefreshToken: refreshToken, RequestId: requestID(refreshToken)}
}

// requestID returns the hash of the refresh token. A repeated refresh with the same id returns the
// same pair of tokens. So a refresh whose response was lost can be repeated, and two processes with
// the same refresh token get the same pair.
func requestID(refreshToken string) string {
	hash := sha256.Sum256([]byte(refreshToken))
	return base64.RawURLEncoding.EncodeToString(hash[:])
}

func (s *Session) withToken(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(withTenant(ctx, s.tenant), "authorization", "Bearer "+token)
}

func withTenant(ctx context.Context, tenant string) context.Context {
	if tenant == "" {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, "x-organization-slug", tenant)
}
