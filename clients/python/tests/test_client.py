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
    with pytest.raises(grpc.RpcError) as two_tenants:
        who_am_i(session, metadata=[("x-tenant-id", "another")])
    assert two_tenants.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_many_calls_with_an_ended_token_refresh_once(session):
    refresh = session._refresh
    session._access = "ended"
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: who_am_i(session), range(16)))
    assert len(answers) == 16
    assert session._refresh != refresh
    # If a refresh token had been used twice, the session would have ended.
    assert who_am_i(session).user.email == "ada@acme.test"


def test_two_processes_that_have_one_refresh_token_get_the_same_pair(session, channel, slug):
    """N20"""
    other = Session(channel, slug, "ada@acme.test", PASSWORD)
    refresh_token = session._refresh.refresh_token
    other._keep(auth_service_pb2.LoginResponse(access_token="ended", refresh_token=refresh_token))
    session._access = "ended"
    for each in (session, other):
        assert who_am_i(each).user.email == "ada@acme.test"
    assert session._access == other._access


def test_a_refresh_whose_reply_is_lost_is_made_again(session):
    refresh, lost = session._auth.Refresh, 2

    class Lost(grpc.RpcError):
        def code(self):
            return grpc.StatusCode.UNAVAILABLE

    def loses(request, **options):
        nonlocal lost
        reply = refresh(request, **options)
        if lost > 0:
            lost -= 1
            raise Lost
        return reply

    session._auth.Refresh = loses
    session._access = "ended"
    with pytest.raises(Lost):
        who_am_i(session)
    assert who_am_i(session).user.email == "ada@acme.test"


def test_a_stream_that_is_opened_again_has_the_next_token(session):
    session._access = "ended"
    stub = permission_service_pb2_grpc.PermissionServiceStub(session.channel)
    request = permission_service_pb2.WatchPermissionsRequest()
    with pytest.raises(grpc.RpcError) as refused:
        next(stub.WatchPermissions(request))
    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
    stream = stub.WatchPermissions(request)
    assert next(stream).consistency_token
    stream.cancel()


def test_a_service_signs_in_by_its_key(session, channel):
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
        service._access = "ended"


def test_a_session_that_ended_is_unauthenticated(session):
    session.sign_out()
    with pytest.raises(grpc.RpcError) as ended:
        who_am_i(session)
    assert ended.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert reason(ended.value)


def test_errors_say_what_is_wrong(session):
    stub = user_service_pb2_grpc.UserServiceStub(session.channel)
    request = user_service_pb2.CreateUserRequest(email="grace", request_id="not an id")
    with pytest.raises(grpc.RpcError) as refused:
        stub.CreateUser(request)
    assert reason(refused.value) == "INVALID_FIELDS"
    assert violations(refused.value).keys() == {"email", "request_id"}


def test_the_first_checks_are_allowed_and_denied():
    example = Path(__file__).parent.parent / "examples" / "first.py"
    command = [sys.executable, str(example)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "invoice:read in eu: allowed (DECISION_REASON_GRANTED)" in printed
    assert "invoice:read in asia: denied (DECISION_REASON_SCOPE_MISMATCH)" in printed
    assert "refused (INVALID_FIELDS): email:" in printed
