//! An unreadable row does not affect the use of other rows.

use serde_json::json;
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, CheckRequest, Consistency, DecisionReason, GetTenantRequest,
    ListPermissionsRequest, ListRoleAssignmentsRequest, ListSubjectsRequest, ListTenantsRequest,
    RoleLevel, UnassignRoleRequest, UpdateTenantRequest, WhoAmIRequest,
};
use uuid::Uuid;

use crate::harness::{Client, PASSWORD, TestApp, struct_of, wait_until};

/// Scopes that no request can store.
fn unreadable_scopes() -> [String; 4] {
    [
        r#"{"limit": 1e400}"#.into(),
        r#"{"limit": [1, -1e309]}"#.into(),
        r#"{"limit": {"a": 1}}"#.into(),
        format!(r#"{{"limit": {}1{}}}"#, "[".repeat(200), "]".repeat(200)),
    ]
}

async fn make_unreadable(app: &TestApp, assignment: &str, scope: &str) {
    let id: Uuid = assignment.parse().expect("an id");
    let sql = "update role_assignments set scope = $2::text::jsonb where assignment_id = $1";
    let result =
        sqlx::query(sql).bind(id).bind(scope).execute(&mut app.owner_connection().await).await;
    assert_eq!(result.expect("the update succeeds").rows_affected(), 1);
}

fn check_request(user: &str, permission: &str, explain: bool) -> CheckRequest {
    CheckRequest {
        user_id: user.into(),
        permission: permission.into(),
        scope: struct_of(json!({"limit": 1})),
        consistency: Consistency::FullyConsistent.into(),
        explain,
        ..CheckRequest::default()
    }
}

async fn subjects(acme: &Client, permission: &str) -> Vec<String> {
    let request = ListSubjectsRequest {
        permission: permission.into(),
        scope: struct_of(json!({"limit": 1})),
        ..ListSubjectsRequest::default()
    };
    let reply = acme.permissions().list_subjects(request).await.expect("subjects").into_inner();
    reply.subjects.into_iter().map(|subject| subject.user_id).collect()
}

/// N01: an unreadable scope disables only its own assignment.
#[tokio::test]
async fn an_unreadable_assignment_does_not_apply_and_other_assignments_do() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let bob = acme.create_member("bob", &["doc:read"]).await;
    let spender = acme.create_role("spender", RoleLevel::Member, &["bill:pay"]).await;
    let unreadable_rows = r#"tenantry_unreadable_rows_total{table="role_assignment"}"#;
    for (index, scope) in unreadable_scopes().iter().enumerate() {
        let unreadable = acme.assign_with_scope(&ada.user_id, &spender, json!({"limit": 1})).await;
        let readable = acme.assign_with_scope(&bob.user_id, &spender, json!({"limit": 1})).await;
        assert!(acme.decide(check_request(&ada.user_id, "bill:pay", false)).await.allowed);
        let count_before = app.metric(unreadable_rows).await.expect("a count");
        make_unreadable(&app, &unreadable, scope).await;

        for explain in [false, true] {
            let decision = acme.decide(check_request(&ada.user_id, "bill:pay", explain)).await;
            assert_eq!(decision.reason(), DecisionReason::NotGranted, "{index}");
            assert!(acme.decide(check_request(&ada.user_id, "doc:read", explain)).await.allowed);
        }
        let item = |user: &Client| BatchCheckItem {
            user_id: user.user_id.clone(),
            permission: "bill:pay".into(),
            scope: struct_of(json!({"limit": 1})),
            ..BatchCheckItem::default()
        };
        let request = BatchCheckRequest {
            items: vec![item(&ada), item(&bob)],
            consistency: Consistency::FullyConsistent.into(),
            ..BatchCheckRequest::default()
        };
        let reply = acme.permissions().batch_check(request).await.expect("decided").into_inner();
        let allowed: Vec<_> = reply.results.iter().map(|result| result.allowed).collect();
        assert_eq!(allowed, [false, true], "{index}");
        assert_eq!(subjects(&acme, "bill:pay").await, [acme.user_id.clone(), bob.user_id.clone()]);
        assert!(subjects(&acme, "doc:read").await.contains(&ada.user_id));

        let request = ListPermissionsRequest {
            user_id: ada.user_id.clone(),
            consistency: Consistency::FullyConsistent.into(),
            ..ListPermissionsRequest::default()
        };
        let permissions = acme.permissions().list_permissions(request).await.expect("a list");
        let permissions: Vec<_> = permissions
            .into_inner()
            .permissions
            .into_iter()
            .map(|grant| grant.permission)
            .collect();
        assert_eq!(permissions, ["doc:read"]);
        // The cache gets the change from the feed within a second.
        wait_until(5, || async {
            let me = ada.auth().who_am_i(WhoAmIRequest {}).await.expect("an identity");
            me.into_inner().roles == ["ada"]
        })
        .await;
        let signed_in = app.anonymous().login("acme", &ada.email, PASSWORD).await;
        let payload = signed_in.tokens.access_token.split('.').nth(1).expect("claims").to_owned();
        let claims: serde_json::Value =
            serde_json::from_slice(&decode_base64(&payload)).expect("claims");
        assert_eq!(claims["roles"], json!(["ada"]));

        let request = ListRoleAssignmentsRequest::default();
        let listed = acme.roles().list_role_assignments(request).await.expect("a page");
        for assignment in listed.into_inner().role_assignments {
            assert_eq!(assignment.unreadable, assignment.id == unreadable, "{index}");
            assert_eq!(assignment.scope.is_some(), assignment.id == readable, "{index}");
        }
        assert!(app.metric(unreadable_rows).await.expect("a count") > count_before);

        let unassign_request = |user: &Client| UnassignRoleRequest {
            user_id: user.user_id.clone(),
            role_id: spender.clone(),
            all_scopes: true,
            ..UnassignRoleRequest::default()
        };
        acme.roles().unassign_role(unassign_request(&ada)).await.expect("unassigned");
        acme.roles().unassign_role(unassign_request(&bob)).await.expect("unassigned");
    }
}

fn decode_base64(part: &str) -> Vec<u8> {
    use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
    BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64")
}

/// N01: constraints refuse values that the service cannot decode.
#[tokio::test]
async fn the_schema_refuses_values_that_would_make_a_whole_read_fail() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    acme.create_member("ada", &["doc:read"]).await;
    for statement in [
        "update role_assignments set expires_at = 'infinity'",
        "update role_assignments set created_at = '-infinity'",
        "update role_assignments set expires_at = '20000-01-01'",
        "update role_assignments set scope = '[]'",
        "update role_assignments set scope = '{}'",
        "update roles set permissions = array[null, 'a:b']",
        "update roles set permissions = '{{a:b},{c:d}}'",
    ] {
        let result = sqlx::query(statement).execute(&mut app.owner_connection().await).await;
        assert!(result.is_err(), "{statement}");
    }
}

/// N01: unreadable settings are left out of the reply.
/// N02: settings that are nested too deep are returned without the innermost values.
#[tokio::test]
async fn unreadable_or_too_deep_settings_do_not_fail_a_reply() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let nested_settings =
        |depth: usize| format!(r#"{{"x": {}1{}}}"#, r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let unreadable_rows = r#"tenantry_unreadable_rows_total{table="tenant"}"#;
    // 60 levels are too deep for a reply, and 300 levels are too deep for the JSON parser.
    for (settings, is_returned) in [
        (r#"{"x": 1e400, "self_registration": true}"#.to_owned(), false),
        (nested_settings(60), true),
        (nested_settings(300), false),
    ] {
        let count_before = app.metric(unreadable_rows).await.expect("a count");
        let sql = "update tenants set settings = $1::text::jsonb where slug = 'acme'";
        let result =
            sqlx::query(sql).bind(&settings).execute(&mut app.owner_connection().await).await;
        assert_eq!(result.expect("the update succeeds").rows_affected(), 1);

        let request = GetTenantRequest { tenant: "acme".into() };
        let tenant = acme.tenants().get_tenant(request).await.expect("a reply").into_inner().tenant;
        assert_eq!(tenant.expect("the tenant").settings.is_some(), is_returned);
        acme.auth().who_am_i(WhoAmIRequest {}).await.expect("an identity");
        let request = ListTenantsRequest::default();
        let listed =
            platform_admin.tenants().list_tenants(request).await.expect("a page").into_inner();
        assert_eq!(listed.tenants.len(), 2, "acme and the platform");
        assert!(app.metric(unreadable_rows).await.expect("a count") > count_before);
        // A change of the name leaves the stored settings unchanged.
        let request =
            UpdateTenantRequest { name: Some("Renamed".into()), ..UpdateTenantRequest::default() };
        acme.tenants().update_tenant(request).await.expect("renamed");
        let unchanged: bool = sqlx::query_scalar(
            "select settings = $1::text::jsonb from tenants where slug = 'acme'",
        )
        .bind(&settings)
        .fetch_one(&mut app.owner_connection().await)
        .await
        .expect("a tenant");
        assert!(unchanged);
        app.anonymous().login("acme", &acme.email, PASSWORD).await;
    }
    let settings = struct_of(json!({"x": 1}));
    let request = UpdateTenantRequest { settings: settings.clone(), ..Default::default() };
    let reply = acme.tenants().update_tenant(request).await.expect("replaced").into_inner();
    assert_eq!(reply.tenant.expect("the tenant").settings, settings);
}
