"""Tests against the server at TENANTRY_ADDR."""

import os
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from tenantry.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    permission_service_pb2,
    permission_service_pb2_grpc,
    service_account_service_pb2,
    service_account_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from tenantry_client import Session, reason, violations

PASSWORD = "correct horse battery"


@pytest.fixture
def slug() -> str:
    return f"acme-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def channel():
    with grpc.insecure_channel(os.environ["TENANTRY_ADDR"]) as channel:
        yield channel


@pytest.fixture
def session(channel, slug):
    auth_service_pb2_grpc.AuthServiceStub(channel).Register(
        auth_service_pb2.RegisterRequest(
            email="ada@acme.test",
            password=PASSWORD,
            organization_name="Acme",
            organization_slug=slug,
        )
    )
    return Session(channel, slug, "ada@acme.test", PASSWORD)


def who_am_i(session: Session, **options) -> auth_service_pb2.WhoAmIResponse:
    stub = auth_service_pb2_grpc.AuthServiceStub(session.channel)
    return stub.WhoAmI(auth_service_pb2.WhoAmIRequest(), **options)


def test_calls_are_made_as_the_user_in_its_tenant(session, slug):
    me = who_am_i(session)
    assert (me.user.email, me.tenant.slug) == ("ada@acme.test", slug)
    with pytest.raises(grpc.RpcError) as error:
        who_am_i(session, metadata=[("x-tenant-id", "another")])
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_many_calls_with_an_invalid_token_refresh_once(session):
    refresh_request = session._refresh_request
    session._access_token = "invalid"
    with ThreadPoolExecutor(16) as threads:
        responses = list(threads.map(lambda _: who_am_i(session), range(16)))
    assert len(responses) == 16
    assert session._refresh_request != refresh_request
    # If a refresh token had been used twice, the session would have ended.
    assert who_am_i(session).user.email == "ada@acme.test"


def test_two_processes_with_the_same_refresh_token_get_the_same_tokens(session, channel, slug):
    """N20: the request id of a refresh is the hash of the refresh token."""
    other_session = Session(channel, slug, "ada@acme.test", PASSWORD)
    refresh_token = session._refresh_request.refresh_token
    tokens = auth_service_pb2.LoginResponse(access_token="invalid", refresh_token=refresh_token)
    other_session._store_tokens(tokens)
    session._access_token = "invalid"
    for caller_session in (session, other_session):
        assert who_am_i(caller_session).user.email == "ada@acme.test"
    assert session._access_token == other_session._access_token


def test_a_refresh_is_repeated_after_its_response_was_lost(session):
    # A session tries a refresh twice, so a call fails only if two responses are lost.
    refresh, responses_to_lose = session._auth.Refresh, 2

    class ResponseLost(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

    def refresh_and_lose_response(request, **options):
        nonlocal responses_to_lose
        response = refresh(request, **options)
        if responses_to_lose > 0:
            responses_to_lose -= 1
            raise ResponseLost
        return response

    session._auth.Refresh = refresh_and_lose_response
    session._access_token = "invalid"
    with pytest.raises(ResponseLost):
        who_am_i(session)
    assert who_am_i(session).user.email == "ada@acme.test"


def test_a_stream_that_is_opened_again_uses_the_next_token(session):
    session._access_token = "invalid"
    stub = permission_service_pb2_grpc.PermissionServiceStub(session.channel)
    request = permission_service_pb2.WatchPermissionsRequest()
    with pytest.raises(grpc.RpcError) as error:
        next(stub.WatchPermissions(request))
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    stream = stub.WatchPermissions(request)
    assert next(stream).consistency_token
    stream.cancel()


def test_a_service_account_signs_in_with_its_api_key(session, channel):
    accounts = service_account_service_pb2_grpc.ServiceAccountServiceStub(session.channel)
    account = accounts.CreateServiceAccount(
        service_account_service_pb2.CreateServiceAccountRequest(name="billing")
    ).service_account.id
    secret = accounts.CreateApiKey(
        service_account_service_pb2.CreateApiKeyRequest(service_account_id=account)
    ).secret
    service = Session.with_api_key(channel, secret)
    for _ in range(2):
        assert who_am_i(service).service_account.id == account
        # The second call must get the next token with the API key.
        service._access_token = "invalid"


def test_a_call_of_an_ended_session_is_unauthenticated(session):
    session.sign_out()
    with pytest.raises(grpc.RpcError) as error:
        who_am_i(session)
    assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason(error.value)


def test_errors_contain_a_reason_and_the_violations(session):
    stub = user_service_pb2_grpc.UserServiceStub(session.channel)
    request = user_service_pb2.CreateUserRequest(email="grace", request_id="not an id")
    with pytest.raises(grpc.RpcError) as error:
        stub.CreateUser(request)
    assert reason(error.value) == "INVALID_FIELDS"
    assert violations(error.value).keys() == {"email", "request_id"}


def test_the_example_allows_one_check_and_denies_the_other():
    example = Path(__file__).parent.parent / "examples" / "first.py"
    command = [sys.executable, str(example)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "invoice:read in eu: allowed (DECISION_REASON_GRANTED)" in output
    assert "invoice:read in asia: denied (DECISION_REASON_SCOPE_MISMATCH)" in output
    assert "refused (INVALID_FIELDS): email:" in output
