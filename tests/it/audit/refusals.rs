//! Refused calls are recorded one by one. Above a rate they are recorded only as a count.

use futures::future::join_all;
use prost_types::value::Kind;
use tenantry::proto::v1::{
    AssignRoleRequest, AuditEvent, BatchCheckItem, BatchCheckRequest, CheckRequest,
    CreateRoleRequest, GetJwksRequest, ListUsersRequest, LoginRequest, LogoutRequest,
    RefreshRequest, RegisterRequest, RoleLevel,
};
use tonic::Code;

use super::{events, kinds};
use crate::harness::{PASSWORD, Proxy, TestApp, Then, refused, unknown_id, until};

fn detail(event: &AuditEvent, name: &str) -> String {
    let detail = event.detail.as_ref().expect("a detail");
    match &detail.fields[name].kind {
        Some(Kind::StringValue(text)) => text.clone(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        other => panic!("{other:?}"),
    }
}

/// R33: every refusal for missing rights leaves an audit event.
#[tokio::test]
async fn every_call_refused_for_permissions_is_recorded() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let weak = acme.member("weak", &["role:create", "role:assign"]).await;
    let strong = acme.create_role("strong", RoleLevel::Manager, &["doc:delete"]).await;

    // Refused by the method's policy.
    let reply = weak.users().list_users(ListUsersRequest::default()).await;
    refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    // Refused because of the tenant.
    let other_tenant_client = weak.with("x-tenant-id", &other.tenant_id);
    let reply = other_tenant_client.users().list_users(ListUsersRequest::default()).await;
    refused(reply, Code::PermissionDenied, "TENANT_MISMATCH");
    // Refused because of values in the request.
    let grant = AssignRoleRequest {
        user_id: weak.user_id.clone(),
        role_id: strong,
        ..AssignRoleRequest::default()
    };
    weak.roles().assign_role(grant).await.expect_err("more than it holds");
    let create = CreateRoleRequest {
        name: "mine".into(),
        level: RoleLevel::OrgAdmin.into(),
        ..CreateRoleRequest::default()
    };
    weak.roles().create_role(create).await.expect_err("above its own level");
    // Refused because it is about another user.
    let about =
        CheckRequest { user_id: unknown_id(), permission: "doc:read".into(), ..Default::default() };
    let reply = weak.permissions().check(about).await;
    refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    // Refused items of a batch that is otherwise answered.
    let item = |user: &str| BatchCheckItem {
        user_id: user.into(),
        permission: "doc:read".into(),
        ..BatchCheckItem::default()
    };
    let items = vec![item(""), item(&acme.user_id), item(&other.user_id)];
    let batch = BatchCheckRequest { items, ..BatchCheckRequest::default() };
    weak.permissions().batch_check(batch).await.expect("answers");

    let refusals = events(&acme, "kind = call_refused").await;
    let found: Vec<_> =
        refusals.iter().map(|event| (detail(event, "method"), detail(event, "reason"))).collect();
    let service = |method: &str| format!("/tenantry.v1.{method}");
    assert_eq!(found.len(), 6, "{found:?}");
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
        assert_eq!(found[n].0, service(method));
        assert!(found[n].1.contains(reason) && !found[n].1.is_empty(), "{found:?}");
    }
    for event in &refusals {
        assert_eq!(event.actor_id, weak.user_id);
        assert_eq!(event.session_id, weak.tokens.session_id);
        assert_eq!(event.ip, "127.0.0.1");
    }
    assert!(events(&other, "kind = call_refused").await.is_empty());
}

/// A denied decision is an answer, not a refusal.
#[tokio::test]
async fn a_denied_decision_is_not_recorded_as_a_refusal() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let weak = acme.member("weak", &[]).await;
    assert!(!weak.may("", "doc:read").await);
    assert!(events(&acme, "kind = call_refused").await.is_empty());
}

#[tokio::test]
async fn failures_without_a_token_are_recorded_in_the_tenant_concerned() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &[]).await;
    let join = RegisterRequest {
        email: "eve@acme.test".into(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        ..RegisterRequest::default()
    };
    app.anonymous().auth().register(join).await.expect_err("closed");
    ada.auth().logout(LogoutRequest::default()).await.expect("signs out");
    let refresh = RefreshRequest {
        refresh_token: ada.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    app.anonymous().auth().refresh(refresh).await.expect_err("the session has ended");

    let refused = events(&acme, "kind = registration_refused").await;
    assert_eq!(refused.len(), 1);
    assert_eq!(detail(&refused[0], "reason"), "REGISTRATION_CLOSED");
    let refused = events(&acme, "kind = refresh_refused").await;
    assert_eq!(refused.len(), 1);
    assert_eq!(refused[0].target_id, ada.user_id);
    assert_eq!(refused[0].session_id, ada.tokens.session_id);
}

#[tokio::test]
async fn a_flood_of_refusals_is_recorded_as_a_count() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let weak = acme.member("weak", &[]).await;
    let calls = (0..100).map(|_| async {
        weak.users().list_users(ListUsersRequest::default()).await.expect_err("refused");
    });
    join_all(calls).await;
    assert_eq!(events(&acme, "kind = call_refused").await.len(), 20);

    // Refusals above the rate are recorded as a count, once per minute and at shutdown.
    let database = app.database.clone();
    app.stop().await;
    let app = TestApp::on(&database, |_| {}).await;
    let counted = events(&acme.on(&app.channel), "kind = refusals_counted").await;
    assert_eq!(kinds(&counted), ["refusals_counted"]);
    assert_eq!(detail(&counted[0], "count"), "80");
    assert_eq!(counted[0].target_id, weak.user_id);
}

/// A refusal is recorded even when the client disconnects before the answer.
#[tokio::test]
async fn a_cancelled_call_is_recorded_all_the_same() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let weak = acme.member("weak", &[]).await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&app.database);
    let replica = TestApp::on(&app.database, |values| values.set("DATABASE_URL", url)).await;
    let replica_client = weak.on(&replica.channel);
    proxy.when_sent("call_refused", Then::Hold);
    let mut users = replica_client.users();
    tokio::select! {
        reply = users.list_users(ListUsersRequest::default()) => panic!("held: {reply:?}"),
        () = proxy.until_held() => {}
    }
    // When the server has answered these calls, it has also received the cancellation.
    for _ in 0..2 {
        replica_client.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
    }
    proxy.pass();
    until(10, || async { events(&acme, "kind = call_refused").await.len() == 1 }).await;
}

/// N09: each limit leaves at most one event per minute, however many calls it refuses, and none
/// for a tenant that does not exist.
#[tokio::test]
async fn calls_above_a_rate_are_counted_in_their_tenants_trail() {
    let app = TestApp::with(|values| values.set("RATE_LIMIT_SIGN_IN", "off,5/1h")).await;
    let acme = app.tenant("acme").await;
    let sign_in = |slug: &str| LoginRequest {
        email: "who@acme.test".into(),
        password: "not this one".into(),
        organization_slug: slug.into(),
        ..LoginRequest::default()
    };
    let limited = |slug: &'static str, calls: usize| {
        let app = &app;
        async move {
            let calls = (0..calls).map(|_| async {
                let reply = app.anonymous().auth().login(sign_in(slug)).await;
                let status = reply.expect_err("refused");
                usize::from(status.code() == Code::ResourceExhausted)
            });
            join_all(calls).await.into_iter().sum::<usize>()
        }
    };
    // The sign-in of the tenant's administrator was the first call.
    assert_eq!(limited("acme", 12).await, 8);
    assert_eq!(limited("nowhere", 12).await, 7);

    let database = app.database.clone();
    app.stop().await;
    let app = TestApp::on(&database, |_| {}).await;
    let counted = events(&acme.on(&app.channel), "kind = call_limited").await;
    assert_eq!(counted.len(), 1);
    assert_eq!(detail(&counted[0], "class"), "sign_in");
    assert_eq!(detail(&counted[0], "by"), "tenant");
    assert_eq!(detail(&counted[0], "count"), "8");
    assert_eq!(counted[0].target_id, acme.tenant_id);
    assert_eq!(app.recorded("call_limited").await.len(), 1);
}
