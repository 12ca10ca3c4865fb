//! Each refused call is recorded as an event. Above a rate, refused calls are recorded only as a
//! count.

use futures::future::join_all;
use prost_types::value::Kind;
use tenantry::proto::v1::{
    AssignRoleRequest, AuditEvent, BatchCheckItem, BatchCheckRequest, CheckRequest,
    CreateRoleRequest, GetJwksRequest, ListUsersRequest, LoginRequest, LogoutRequest,
    RefreshRequest, RegisterRequest, RoleLevel,
};
use tonic::Code;

use super::{events_oldest_first, kinds};
use crate::harness::{Fault, PASSWORD, Proxy, TestApp, assert_refused, unknown_id, wait_until};

fn detail(event: &AuditEvent, name: &str) -> String {
    let detail = event.detail.as_ref().expect("the event has a detail");
    match &detail.fields[name].kind {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

/// R33: every refusal for missing rights leaves an audit event.
#[tokio::test]
async fn every_call_refused_for_missing_rights_is_recorded() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let member = acme.create_member("weak", &["role:create", "role:assign"]).await;
    let strong_role = acme.create_role("strong", RoleLevel::Manager, &["doc:delete"]).await;

    // Refused by the method's policy.
    let reply = member.users().list_users(ListUsersRequest::default()).await;
    assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    // Refused because of the tenant.
    let other_tenant_client = member.with_metadata("x-tenant-id", &other.tenant_id);
    let reply = other_tenant_client.users().list_users(ListUsersRequest::default()).await;
    assert_refused(reply, Code::PermissionDenied, "TENANT_MISMATCH");
    // Refused because of values in the request.
    let assign = AssignRoleRequest {
        user_id: member.user_id.clone(),
        role_id: strong_role,
        ..AssignRoleRequest::default()
    };
    member
        .roles()
        .assign_role(assign)
        .await
        .expect_err("the caller does not hold the role's permissions");
    let create = CreateRoleRequest {
        name: "mine".into(),
        level: RoleLevel::OrgAdmin.into(),
        ..CreateRoleRequest::default()
    };
    member.roles().create_role(create).await.expect_err("the level is above the caller's level");
    // Refused because the subject is another user.
    let check =
        CheckRequest { user_id: unknown_id(), permission: "doc:read".into(), ..Default::default() };
    let reply = member.permissions().check(check).await;
    assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    // Two items of a batch are refused, which is one event. The first item is answered.
    let item = |user: &str| BatchCheckItem {
        user_id: user.into(),
        permission: "doc:read".into(),
        ..BatchCheckItem::default()
    };
    let items = vec![item(""), item(&acme.user_id), item(&other.user_id)];
    let batch = BatchCheckRequest { items, ..BatchCheckRequest::default() };
    member.permissions().batch_check(batch).await.expect("decisions");

    let refusals = events_oldest_first(&acme, "kind = call_refused").await;
    let recorded: Vec<_> =
        refusals.iter().map(|event| (detail(event, "method"), detail(event, "reason"))).collect();
    let path = |method: &str| format!("/tenantry.v1.{method}");
    assert_eq!(recorded.len(), 6, "{recorded:?}");
    // An empty reason stands for any reason.
    for (n, (method, reason)) in [
        ("UserService/ListUsers", "PERMISSION_MISSING"),
        ("UserService/ListUsers", "TENANT_MISMATCH"),
        ("RoleService/AssignRole", ""),
        ("RoleService/CreateRole", ""),
        ("PermissionService/Check", "PERMISSION_MISSING"),
        ("PermissionService/BatchCheck", "PERMISSION_MISSING"),
    ]
    .into_iter()
    .enumerate()
    {
        let (recorded_method, recorded_reason) = &recorded[n];
        assert_eq!(*recorded_method, path(method));
        assert!(recorded_reason.contains(reason) && !recorded_reason.is_empty(), "{recorded:?}");
    }
    for event in &refusals {
        assert_eq!(event.actor_id, member.user_id);
        assert_eq!(event.session_id, member.tokens.session_id);
        assert_eq!(event.ip, "127.0.0.1");
    }
    assert!(events_oldest_first(&other, "kind = call_refused").await.is_empty());
}

/// A decision that denies a permission is a response, not a refusal.
#[tokio::test]
async fn a_decision_that_denies_is_not_recorded_as_a_refusal() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let member = acme.create_member("weak", &[]).await;
    assert!(!member.may("doc:read").await);
    assert!(events_oldest_first(&acme, "kind = call_refused").await.is_empty());
}

#[tokio::test]
async fn a_refused_registration_or_refresh_is_recorded_in_its_tenant() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let join = RegisterRequest {
        email: "eve@acme.test".into(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        ..RegisterRequest::default()
    };
    app.anonymous().auth().register(join).await.expect_err("registration is closed");
    ada.auth().logout(LogoutRequest::default()).await.expect("signed out");
    let refresh = RefreshRequest {
        refresh_token: ada.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    app.anonymous().auth().refresh(refresh).await.expect_err("the session has ended");

    let refusals = events_oldest_first(&acme, "kind = registration_refused").await;
    assert_eq!(refusals.len(), 1);
    assert_eq!(detail(&refusals[0], "reason"), "REGISTRATION_CLOSED");
    let refusals = events_oldest_first(&acme, "kind = refresh_refused").await;
    assert_eq!(refusals.len(), 1);
    assert_eq!(refusals[0].target_id, ada.user_id);
    assert_eq!(refusals[0].session_id, ada.tokens.session_id);
}

#[tokio::test]
async fn a_flood_of_refusals_is_recorded_as_a_count() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let member = acme.create_member("weak", &[]).await;
    let calls = (0..100).map(|_| async {
        member.users().list_users(ListUsersRequest::default()).await.expect_err("refused");
    });
    join_all(calls).await;
    assert_eq!(events_oldest_first(&acme, "kind = call_refused").await.len(), 20);

    // Of the refusals of one subject in a minute, 20 are single events. The other 80 are recorded
    // as a count, once per minute and at shutdown.
    let database = app.database.clone();
    app.stop().await;
    let app = TestApp::on_database(&database, |_| {}).await;
    let count_events =
        events_oldest_first(&acme.on_server(&app.channel), "kind = refusals_counted").await;
    assert_eq!(kinds(&count_events), ["refusals_counted"]);
    assert_eq!(detail(&count_events[0], "count"), "80");
    assert_eq!(count_events[0].target_id, member.user_id);
}

/// A refusal is recorded even when the client cancels the call before the response.
#[tokio::test]
async fn the_refusal_of_a_cancelled_call_is_recorded() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let member = acme.create_member("weak", &[]).await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let replica =
        TestApp::on_database(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = member.on_server(&replica.channel);
    proxy.fault_when_sent("call_refused", Fault::Hold);
    let mut users = replica_client.users();
    tokio::select! {
        reply = users.list_users(ListUsersRequest::default()) => panic!("not held: {reply:?}"),
        () = proxy.wait_until_held() => {}
    }
    // These calls use the connection of the cancelled call, so the server receives the cancellation
    // before it answers them.
    for _ in 0..2 {
        replica_client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    }
    proxy.pass();
    wait_until(10, || async { events_oldest_first(&acme, "kind = call_refused").await.len() == 1 })
        .await;
}

/// N09: all calls that a rate limit refuses in a minute are one event of the tenant. A tenant that
/// does not exist gets no event.
#[tokio::test]
async fn calls_above_a_rate_limit_are_counted_in_the_trail_of_their_tenant() {
    let app = TestApp::with_settings(|values| values.set("RATE_LIMIT_SIGN_IN", "off,5/1h")).await;
    let acme = app.create_tenant("acme").await;
    let sign_in = |slug: &str| LoginRequest {
        email: "who@acme.test".into(),
        password: "not this one".into(),
        organization_slug: slug.into(),
        ..LoginRequest::default()
    };
    let count_limited_calls = |slug: &'static str, call_count: usize| {
        let app = &app;
        async move {
            let calls = (0..call_count).map(|_| async {
                let reply = app.anonymous().auth().login(sign_in(slug)).await;
                let status = reply.expect_err("refused");
                usize::from(status.code() == Code::ResourceExhausted)
            });
            join_all(calls).await.into_iter().sum::<usize>()
        }
    };
    // Each tenant may make five calls. The sign-in of acme's administrator was acme's first call.
    assert_eq!(count_limited_calls("acme", 12).await, 8);
    assert_eq!(count_limited_calls("nowhere", 12).await, 7);

    let database = app.database.clone();
    app.stop().await;
    let app = TestApp::on_database(&database, |_| {}).await;
    let count_events =
        events_oldest_first(&acme.on_server(&app.channel), "kind = call_limited").await;
    assert_eq!(count_events.len(), 1);
    assert_eq!(detail(&count_events[0], "class"), "sign_in");
    assert_eq!(detail(&count_events[0], "by"), "tenant");
    assert_eq!(detail(&count_events[0], "count"), "8");
    assert_eq!(count_events[0].target_id, acme.tenant_id);
    assert_eq!(app.audit_events("call_limited").await.len(), 1);
}
