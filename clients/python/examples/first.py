"""Creates a tenant, a user and a role, and checks what the user may do."""

import os
import uuid

import grpc
from tenantry.v1 import (
    auth_service_pb2,
    auth_service_pb2_grpc,
    permission_service_pb2,
    permission_service_pb2_grpc,
    role_service_pb2,
    role_service_pb2_grpc,
    user_service_pb2,
    user_service_pb2_grpc,
)
from tenantry_client import Session, reason, violations


def main() -> None:
    address = os.environ.get("TENANTRY_ADDR", "127.0.0.1:50051")
    # For a server on another machine use grpc.secure_channel with grpc.ssl_channel_credentials().
    with grpc.insecure_channel(address) as channel:
        run(channel)


def run(channel: grpc.Channel) -> None:
    tenant = f"acme-{uuid.uuid4().hex[:8]}"
    email, password = "ada@acme.test", "correct horse battery"
    auth_service_pb2_grpc.AuthServiceStub(channel).Register(
        auth_service_pb2.RegisterRequest(
            email=email,
            password=password,
            organization_name="Acme",
            organization_slug=tenant,
        )
    )
    session = Session(channel, tenant, email, password)
    user = create_user_with_role(session)

    permissions = permission_service_pb2_grpc.PermissionServiceStub(session.channel)
    for region in ("eu", "asia"):
        request = permission_service_pb2.CheckRequest(
            user_id=user, permission="invoice:read", scope={"region": region}
        )
        response = permissions.Check(request)
        decision = "allowed" if response.allowed else "denied"
        decision_reason = permission_service_pb2.DecisionReason.Name(response.reason)
        print(f"invoice:read in {region}: {decision} ({decision_reason})")

    try:
        users = user_service_pb2_grpc.UserServiceStub(session.channel)
        users.CreateUser(user_service_pb2.CreateUserRequest(email="grace"))
    except grpc.RpcError as error:
        for field, description in violations(error).items():
            print(f"refused ({reason(error)}): {field}: {description}")
    session.sign_out()


def create_user_with_role(session: Session) -> str:
    """Creates a user who has all invoice permissions in the regions eu and us."""
    users = user_service_pb2_grpc.UserServiceStub(session.channel)
    user = users.CreateUser(user_service_pb2.CreateUserRequest(email="grace@acme.test")).user
    roles = role_service_pb2_grpc.RoleServiceStub(session.channel)
    role = roles.CreateRole(
        role_service_pb2.CreateRoleRequest(
            name="billing",
            level=role_service_pb2.ROLE_LEVEL_MEMBER,
            permissions=["invoice:*"],
        )
    ).role
    roles.AssignRole(
        role_service_pb2.AssignRoleRequest(
            user_id=user.id, role_id=role.id, scope={"region": ["eu", "us"]}
        )
    )
    return user.id


if __name__ == "__main__":
    main()
