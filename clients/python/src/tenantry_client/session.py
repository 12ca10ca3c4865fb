"""A sign-in, and a channel that adds its access token to each call."""

from __future__ import annotations

import base64
import hashlib
import threading
from typing import NamedTuple

import grpc
from tenantry.v1 import auth_service_pb2, auth_service_pb2_grpc


# Timeout of a call that gets tokens, in seconds.
_TOKEN_TIMEOUT = 10


class Session(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """The sign-in of a user, in the tenant with this slug.

    Pass ``session.channel`` to the generated stubs. The channel adds the access token and
    the tenant to each call, and gets the next token when the server refuses the current
    token. It is safe for use by many threads.
    """

    def __init__(self, channel: grpc.Channel, tenant: str, email: str, password: str):
        self._initialize(channel, [("x-organization-slug", tenant)])
        login = auth_service_pb2.LoginRequest(email=email, password=password)
        self._store_tokens(
            self._auth.Login(login, metadata=self._tenant_metadata, timeout=_TOKEN_TIMEOUT)
        )

    @classmethod
    def with_api_key(cls, channel: grpc.Channel, secret: str) -> Session:
        """Signs in a service account with the secret of one of its API keys."""
        session = cls.__new__(cls)
        # The key contains the tenant, so no metadata for the tenant is needed.
        session._initialize(channel, [])
        session._api_key = secret
        session._fetch_next_token()
        return session

    def _initialize(self, channel: grpc.Channel, tenant_metadata: list[tuple[str, str]]) -> None:
        self._auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        self._tenant_metadata = tenant_metadata
        self._api_key: str | None = None
        self._lock = threading.Lock()
        # The latest stream, and the token that it was opened with.
        self._stream: tuple[grpc.Call | None, str] = (None, "")
        self.channel = grpc.intercept_channel(channel, self)

    def sign_out(self) -> None:
        """Ends a user's session."""
        stub = auth_service_pb2_grpc.AuthServiceStub(self.channel)
        stub.Logout(auth_service_pb2.LogoutRequest())

    def intercept_unary_unary(self, continuation, client_call_details, request):
        """Makes a call. If the call is UNAUTHENTICATED, repeats it once with the next token."""
        used_token = self._access_token
        call = continuation(self._with_token(client_call_details, used_token), request)
        if call.code() is not grpc.StatusCode.UNAUTHENTICATED:
            return call
        token = self._fetch_token_after(used_token)
        return continuation(self._with_token(client_call_details, token), request)

    def intercept_unary_stream(self, continuation, client_call_details, request):
        """Opens a stream. If a stream ends, the program must open a new one.

        If the latest stream ended with UNAUTHENTICATED, the new stream uses the next token.
        """
        latest_stream, token = self._stream
        if latest_stream is None or latest_stream.is_active() or token != self._access_token:
            token = self._access_token
        elif latest_stream.code() is grpc.StatusCode.UNAUTHENTICATED:
            token = self._fetch_token_after(token)
        call = continuation(self._with_token(client_call_details, token), request)
        self._stream = (call, token)
        return call

    def _fetch_token_after(self, used_token: str) -> str:
        # A refresh token works once, and a second use ends the session. So a call that has
        # waited for the lock uses the tokens that another call got.
        with self._lock:
            if self._access_token == used_token:
                try:
                    self._fetch_next_token()
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    self._fetch_next_token()
            return self._access_token

    def _fetch_next_token(self) -> None:
        if self._api_key is None:
            self._store_tokens(self._auth.Refresh(self._refresh_request, timeout=_TOKEN_TIMEOUT))
        else:
            request = auth_service_pb2.ExchangeApiKeyRequest(api_key=self._api_key)
            response = self._auth.ExchangeApiKey(request, timeout=_TOKEN_TIMEOUT)
            self._access_token = response.access_token

    def _store_tokens(self, tokens) -> None:
        self._access_token = tokens.access_token
        self._refresh_request = auth_service_pb2.RefreshRequest(
            refresh_token=tokens.refresh_token, request_id=_request_id(tokens.refresh_token)
        )

    def _with_token(self, details: grpc.ClientCallDetails, token: str) -> "_CallDetails":
        bearer = ("authorization", f"Bearer {token}")
        metadata = [*(details.metadata or ()), *self._tenant_metadata, bearer]
        return _CallDetails(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def _request_id(refresh_token: str) -> str:
    """Returns the hash of the refresh token.

    A repeated refresh with the same id returns the same pair of tokens. So a refresh whose
    response was lost can be repeated, and two processes with the same refresh token get
    the same pair.
    """
    digest = hashlib.sha256(refresh_token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class _Fields(NamedTuple):
    """The details of a call that gRPC reads."""

    method: str
    timeout: float | None
    metadata: list
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _CallDetails(_Fields, grpc.ClientCallDetails):
    pass
