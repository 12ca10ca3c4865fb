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
    one. It is safe for use by many threads.
    """

    def __init__(self, channel: grpc.Channel, tenant: str, email: str, password: str):
        self._begin(channel, [("x-organization-slug", tenant)])
        login = auth_service_pb2.LoginRequest(email=email, password=password)
        self._keep(self._auth.Login(login, metadata=self._tenant, timeout=_TOKEN_TIMEOUT))

    @classmethod
    def with_api_key(cls, channel: grpc.Channel, secret: str) -> Session:
        """Signs in a service account with the secret of one of its API keys."""
        session = cls.__new__(cls)
        # The key contains the tenant, so no metadata names it.
        session._begin(channel, [])
        session._api_key = secret
        session._take()
        return session

    def _begin(self, channel: grpc.Channel, tenant: list[tuple[str, str]]) -> None:
        self._auth = auth_service_pb2_grpc.AuthServiceStub(channel)
        self._tenant = tenant
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
        """Makes a call. If it is UNAUTHENTICATED, repeats it once with the next token."""
        used = self._access
        call = continuation(self._as(client_call_details, used), request)
        if call.code() is not grpc.StatusCode.UNAUTHENTICATED:
            return call
        return continuation(self._as(client_call_details, self._successor(used)), request)

    def intercept_unary_stream(self, continuation, client_call_details, request):
        """Opens a stream. If a stream ends, the caller must open it again.

        After a stream that ended with UNAUTHENTICATED, the next token is used.
        """
        latest, token = self._stream
        if latest is None or latest.is_active() or token != self._access:
            token = self._access
        elif latest.code() is grpc.StatusCode.UNAUTHENTICATED:
            token = self._successor(token)
        call = continuation(self._as(client_call_details, token), request)
        self._stream = (call, token)
        return call

    def _successor(self, used: str) -> str:
        # A refresh token works once, and a second use ends the session. A call that has
        # waited for the lock finds the tokens that another call got.
        with self._lock:
            if self._access == used:
                try:
                    self._take()
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise
                    self._take()
            return self._access

    def _take(self) -> None:
        if self._api_key is None:
            self._keep(self._auth.Refresh(self._refresh, timeout=_TOKEN_TIMEOUT))
        else:
            request = auth_service_pb2.ExchangeApiKeyRequest(api_key=self._api_key)
            self._access = self._auth.ExchangeApiKey(request, timeout=_TOKEN_TIMEOUT).access_token

    def _keep(self, tokens) -> None:
        self._access = tokens.access_token
        self._refresh = auth_service_pb2.RefreshRequest(
            refresh_token=tokens.refresh_token, request_id=_request_id(tokens.refresh_token)
        )

    def _as(self, details: grpc.ClientCallDetails, token: str) -> "_Details":
        bearer = ("authorization", f"Bearer {token}")
        metadata = [*(details.metadata or ()), *self._tenant, bearer]
        return _Details(
            details.method,
            details.timeout,
            metadata,
            details.credentials,
            details.wait_for_ready,
            details.compression,
        )


def _request_id(refresh_token: str) -> str:
    """Returns the hash of the refresh token.

    With it, a refresh whose response was lost can be repeated and returns the same pair
    of tokens, also for another process that has the same token.
    """
    digest = hashlib.sha256(refresh_token.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


class _Fields(NamedTuple):
    method: str
    timeout: float | None
    metadata: list
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class _Details(_Fields, grpc.ClientCallDetails):
    pass
