//! Platform staff act in other tenants, and each such call is recorded.

use tenantry::{
    gate::{Access, Policies},
    proto::v1::{
        CreateTenantRequest, DeleteTenantRequest, GetTenantRequest, ListTenantsRequest,
        ListUsersRequest, SuspendTenantRequest, UpdateTenantRequest,
    },
};
use tonic::Code;

use crate::harness::{Ids, TestApp, methods, refused};

#[tokio::test]
async fn staff_in_another_tenant_see_its_users_and_are_recorded() {
    let app = TestApp::spawn().await;
    let root = app.platform_admin().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let untouched = app.rows_of(&b.tenant_id).await;
    let users = root.with("x-tenant-id", "a").users().list_users(ListUsersRequest::default()).await;
    let users = users.expect("a list").into_inner().users;
    assert_eq!(users.iter().map(|user| user.id.as_str()).collect::<Vec<_>>(), [a.user_id.as_str()]);

    let (actor, home, path): (String, String, String) = sqlx::query_as(
        "select actor_id::text, actor_tenant_id::text, detail ->> 'method' from audit_events
         where tenant_id = $1::text::uuid and kind = 'acted_across_tenants'",
    )
    .bind(&a.tenant_id)
    .fetch_one(&mut app.owner().await)
    .await
    .expect("one event");
    assert_eq!((actor, home), (root.user_id.clone(), root.tenant_id.clone()));
    assert_eq!(path, "/tenantry.v1.UserService/ListUsers");
    assert_eq!(app.rows_of(&b.tenant_id).await, untouched);
}

#[tokio::test]
async fn every_method_across_tenants_is_audited_even_when_it_fails() {
    let app = TestApp::spawn().await;
    let root = app.platform_admin().await;
    let a = app.tenant("a").await;
    let staff = root.with("x-organization-slug", "a");
    let policies = Policies::load().expect("the table");
    for method in methods() {
        let before = app.audited(&a.tenant_id, "acted_across_tenants").await;
        let guarded = policies.of(&method.path()) != Some(&Access::Public);
        method.call(&staff, &method.sample(&Ids::random())).await.ok();
        let after = app.audited(&a.tenant_id, "acted_across_tenants").await;
        assert_eq!(after - before, i64::from(guarded), "{}", method.path());
    }
}

#[tokio::test]
async fn a_tenant_named_in_the_request_is_audited_in_that_tenant() {
    let app = TestApp::spawn().await;
    let root = app.platform_admin().await;
    let a = app.tenant("a").await;
    let get = GetTenantRequest { tenant: "a".into() };
    root.tenants().get_tenant(get).await.expect("the tenant");
    assert_eq!(app.audited(&a.tenant_id, "acted_across_tenants").await, 1);
    let update = UpdateTenantRequest {
        tenant: a.tenant_id.clone(),
        name: Some("Renamed".into()),
        ..UpdateTenantRequest::default()
    };
    root.tenants().update_tenant(update).await.expect("renamed");
    assert_eq!(app.audited(&a.tenant_id, "tenant_updated").await, 1);
    let suspend = SuspendTenantRequest { tenant: "a".into() };
    root.tenants().suspend_tenant(suspend).await.expect("suspended");
    assert_eq!(app.audited(&a.tenant_id, "tenant_suspended").await, 1);
    let delete = DeleteTenantRequest { tenant: "a".into(), ..DeleteTenantRequest::default() };
    root.tenants().delete_tenant(delete).await.expect("deleted");
    assert_eq!(app.audited(&a.tenant_id, "tenant_deleted").await, 1);
}

#[tokio::test]
async fn staff_without_tenant_act_cannot_act_in_other_tenants() {
    let app = TestApp::spawn().await;
    let root = app.platform_admin().await;
    let a = app.tenant("a").await;
    let clerk = root.member("clerk", &["user:*", "tenant:read", "tenant:list"]).await;
    let before = app.rows_of(&a.tenant_id).await;

    let reply =
        clerk.with("x-tenant-id", "a").users().list_users(ListUsersRequest::default()).await;
    refused(reply, Code::PermissionDenied, "TENANT_MISMATCH");
    let get = GetTenantRequest { tenant: "a".into() };
    refused(clerk.tenants().get_tenant(get).await, Code::NotFound, "NOT_FOUND");
    assert_eq!(app.rows_of(&a.tenant_id).await, before);

    let all = clerk.tenants().list_tenants(ListTenantsRequest::default()).await;
    assert_eq!(all.expect("all").into_inner().tenants.len(), 2);
}

#[tokio::test]
async fn only_the_platform_may_act_across_tenants() {
    let app = TestApp::spawn().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let named = b.member("named", &["tenant:act", "user:read", "tenant:read"]).await;
    let before = app.rows_of(&a.tenant_id).await;
    for client in [&b, &named] {
        let reply =
            client.with("x-tenant-id", "a").users().list_users(ListUsersRequest::default()).await;
        refused(reply, Code::PermissionDenied, "TENANT_MISMATCH");
        let get = GetTenantRequest { tenant: a.tenant_id.clone() };
        refused(client.tenants().get_tenant(get).await, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(app.rows_of(&a.tenant_id).await, before);
}

#[tokio::test]
async fn no_tenant_can_become_the_platform() {
    let app = TestApp::spawn().await;
    let root = app.platform_admin().await;
    let a = app.tenant("a").await;
    let rename = |slug: &str| UpdateTenantRequest {
        slug: Some(slug.into()),
        ..UpdateTenantRequest::default()
    };
    let reply = a.tenants().update_tenant(rename("platform")).await;
    refused(reply, Code::AlreadyExists, "SLUG_TAKEN");
    // A slug equal to another tenant's id would be taken for that tenant.
    let reply = a.tenants().update_tenant(rename(&root.tenant_id)).await;
    refused(reply, Code::InvalidArgument, "INVALID_FIELDS");
    let create = CreateTenantRequest {
        name: "Another".into(),
        slug: "platform".into(),
        ..CreateTenantRequest::default()
    };
    refused(root.tenants().create_tenant(create).await, Code::AlreadyExists, "SLUG_TAKEN");
    for tenant in ["platform", root.tenant_id.as_str()] {
        let request = SuspendTenantRequest { tenant: tenant.into() };
        let reply = root.tenants().suspend_tenant(request).await;
        refused(reply, Code::FailedPrecondition, "PLATFORM_TENANT");
        let request = DeleteTenantRequest { tenant: tenant.into(), ..Default::default() };
        let reply = root.tenants().delete_tenant(request).await;
        refused(reply, Code::FailedPrecondition, "PLATFORM_TENANT");
    }
}
