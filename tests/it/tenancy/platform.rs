//! Platform staff act in other tenants, and each such call is recorded.

use tenantry::{
    gate::{Access, Policies},
    proto::v1::{
        CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, ListTenantsRequest,
        ListUsersRequest, SuspendTenantRequest, UpdateTenantRequest,
    },
};
use tonic::Code;

use crate::harness::{Ids, TestApp, assert_refused, methods};

#[tokio::test]
async fn calls_of_platform_staff_in_another_tenant_are_recorded() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let rows_before = app.rows_of(&b.tenant_id).await;
    let users = platform_admin
        .with_metadata("x-tenant-id", "a")
        .users()
        .list_users(ListUsersRequest::default())
        .await;
    let users = users.expect("a list").into_inner().users;
    assert_eq!(users.iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), [a.user_id.as_str()]);

    let (actor, actor_tenant, method): (String, String, String) = sqlx::query_as(
        "select actor_id::text, actor_tenant_id::text, detail ->> 'method' from audit_events
         where tenant_id = $1::text::uuid and kind = 'acted_across_tenants'",
    )
    .bind(&a.tenant_id)
    .fetch_one(&mut app.owner_connection().await)
    .await
    .expect("one event");
    assert_eq!(
        (actor, actor_tenant),
        (platform_admin.user_id.clone(), platform_admin.tenant_id.clone())
    );
    assert_eq!(method, "/tenantry.v1.UserService/ListUsers");
    assert_eq!(app.rows_of(&b.tenant_id).await, rows_before);
}

#[tokio::test]
async fn every_call_in_another_tenant_is_audited_even_if_the_call_fails() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let a = app.create_tenant("a").await;
    let platform_admin_in_a = platform_admin.with_metadata("x-organization-slug", "a");
    let policies = Policies::load().expect("the policies load");
    for method in methods() {
        let count_before = app.audit_event_count(&a.tenant_id, "acted_across_tenants").await;
        let needs_token = policies.access_of(&method.path()) != Some(&Access::Public);
        method.call(&platform_admin_in_a, &method.sample(&Ids::random())).await.ok();
        let count_after = app.audit_event_count(&a.tenant_id, "acted_across_tenants").await;
        assert_eq!(count_after - count_before, i64::from(needs_token), "{}", method.path());
    }
}

#[tokio::test]
async fn a_call_that_names_a_tenant_in_its_request_is_audited_in_that_tenant() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let a = app.create_tenant("a").await;
    let get_request = GetTenantRequest { tenant: "a".into() };
    platform_admin.tenants().get_tenant(get_request).await.expect("the tenant");
    assert_eq!(app.audit_event_count(&a.tenant_id, "acted_across_tenants").await, 1);
    let update_request = UpdateTenantRequest {
        tenant: a.tenant_id.clone(),
        name: Some("Renamed".into()),
        ..UpdateTenantRequest::default()
    };
    platform_admin.tenants().update_tenant(update_request).await.expect("renamed");
    assert_eq!(app.audit_event_count(&a.tenant_id, "tenant_updated").await, 1);
    let suspend_request = SuspendTenantRequest { tenant: "a".into() };
    platform_admin.tenants().suspend_tenant(suspend_request).await.expect("suspended");
    assert_eq!(app.audit_event_count(&a.tenant_id, "tenant_suspended").await, 1);
    let delete_request =
        DeleteTenantRequest { tenant: "a".into(), ..DeleteTenantRequest::default() };
    platform_admin.tenants().delete_tenant(delete_request).await.expect("deleted");
    assert_eq!(app.audit_event_count(&a.tenant_id, "tenant_deleted").await, 1);
}

#[tokio::test]
async fn platform_staff_without_tenant_act_cannot_act_in_other_tenants() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let a = app.create_tenant("a").await;
    let clerk =
        platform_admin.create_member("clerk", &["user:*", "tenant:read", "tenant:list"]).await;
    let rows_before = app.rows_of(&a.tenant_id).await;

    let reply = clerk
        .with_metadata("x-tenant-id", "a")
        .users()
        .list_users(ListUsersRequest::default())
        .await;
    assert_refused(reply, Code::PermissionDenied, "TENANT_MISMATCH");
    let request = GetTenantRequest { tenant: "a".into() };
    assert_refused(clerk.tenants().get_tenant(request).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(app.rows_of(&a.tenant_id).await, rows_before);

    // The list of all tenants does not need `tenant:act`.
    let reply = clerk.tenants().list_tenants(ListTenantsRequest::default()).await;
    assert_eq!(reply.expect("tenants").into_inner().tenants.len(), 2);
}

#[tokio::test]
async fn only_the_platform_may_act_across_tenants() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let member_with_tenant_act =
        b.create_member("ada", &["tenant:act", "user:read", "tenant:read"]).await;
    let rows_before = app.rows_of(&a.tenant_id).await;
    for client in [&b, &member_with_tenant_act] {
        let reply = client
            .with_metadata("x-tenant-id", "a")
            .users()
            .list_users(ListUsersRequest::default())
            .await;
        assert_refused(reply, Code::PermissionDenied, "TENANT_MISMATCH");
        let request = GetTenantRequest { tenant: a.tenant_id.clone() };
        assert_refused(client.tenants().get_tenant(request).await, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(app.rows_of(&a.tenant_id).await, rows_before);
}

#[tokio::test]
async fn no_tenant_can_become_the_platform() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let a = app.create_tenant("a").await;
    let slug_request = |slug: &str| UpdateTenantRequest {
        slug: Some(slug.into()),
        ..UpdateTenantRequest::default()
    };
    let reply = a.tenants().update_tenant(slug_request("platform")).await;
    assert_refused(reply, Code::AlreadyExists, "SLUG_TAKEN");
    // If a slug were the id of another tenant, a request could not distinguish the two tenants.
    let reply = a.tenants().update_tenant(slug_request(&platform_admin.tenant_id)).await;
    assert_refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
    let create_request = CreateTenantRequest {
        name: "Another".into(),
        slug: "platform".into(),
        ..CreateTenantRequest::default()
    };
    assert_refused(
        platform_admin.tenants().create_tenant(create_request).await,
        Code::AlreadyExists,
        "SLUG_TAKEN",
    );
    for tenant in ["platform", platform_admin.tenant_id.as_str()] {
        let request = SuspendTenantRequest { tenant: tenant.into() };
        let reply = platform_admin.tenants().suspend_tenant(request).await;
        assert_refused(reply, Code::FailedPrecondition, "PLATFORM_TENANT");
        let request = DeleteTenantRequest { tenant: tenant.into(), ..Default::default() };
        let reply = platform_admin.tenants().delete_tenant(request).await;
        assert_refused(reply, Code::FailedPrecondition, "PLATFORM_TENANT");
    }
}
