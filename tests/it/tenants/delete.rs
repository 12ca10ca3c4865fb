//! TenantService.DeleteTenant

use tenantry::proto::v1::{DeleteTenantRequest, GetTenantRequest, WhoAmIRequest};
use tonic::{Code, Status};

use crate::harness::{Client, TestApp, assert_refused, reason};

async fn delete(client: &Client, tenant: &str, etag: &str) -> Result<(), Status> {
    let request = DeleteTenantRequest { tenant: tenant.into(), etag: etag.into() };
    client.tenants().delete_tenant(request).await.map(drop)
}

#[tokio::test]
async fn a_deletion_destroys_the_data_key_and_keeps_the_audit_trail() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    acme.create_member("ada", &["doc:read"]).await;
    let platform_admin = app.platform_admin().await;
    let count_events = "select count(*) from audit_events where tenant_id = $1";
    let events_before = app.count(count_events, &acme.tenant_id).await;

    delete(&platform_admin, "acme", "").await.expect("deleted");
    let count_data_keys = "select count(*) from data_keys where tenant_id = $1";
    assert_eq!(app.count(count_data_keys, &acme.tenant_id).await, 0);
    assert_eq!(app.count(count_events, &acme.tenant_id).await, events_before + 1);
    let event = &app.audit_events("tenant_deleted").await[0];
    assert_eq!(event.tenant_id.to_string(), acme.tenant_id);
    assert_eq!(event.target_id, Some(event.tenant_id));
    assert_eq!(event.actor_id.map(|id| id.to_string()), Some(platform_admin.user_id.clone()));
    // The trail of the platform records the deletion too. It shows who deleted the tenant even
    // after the events of the tenant are deleted.
    let event = &app.audit_events("tenant_deleted").await[1];
    assert_eq!(event.tenant_id.to_string(), platform_admin.tenant_id);
    assert_eq!(event.target_id.map(|id| id.to_string()), Some(acme.tenant_id.clone()));
    assert_eq!(event.actor_id.map(|id| id.to_string()), Some(platform_admin.user_id.clone()));

    let result = acme.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
    let status = delete(&platform_admin, "acme", "").await.expect_err("the tenant is deleted");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NOT_FOUND"));
    assert!(other.may("doc:read").await);
}

#[tokio::test]
async fn a_new_tenant_with_the_same_slug_inherits_nothing() {
    let app = TestApp::spawn().await;
    let old_tenant = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    delete(&platform_admin, "acme", "").await.expect("deleted");

    let new_tenant = app.create_tenant("acme").await;
    assert_ne!(old_tenant.tenant_id, new_tenant.tenant_id);
    assert!(!new_tenant.user_may(&old_tenant.user_id, "doc:read").await);
    let result = old_tenant.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(result, Code::Unauthenticated, "TOKEN_INVALID");
}

#[tokio::test]
async fn a_stale_etag_prevents_the_deletion() {
    let app = TestApp::spawn().await;
    app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    let request = GetTenantRequest { tenant: "acme".into() };
    let tenant =
        platform_admin.tenants().get_tenant(request).await.expect("found").into_inner().tenant;

    let status = delete(&platform_admin, "acme", "v0").await.expect_err("the etag is stale");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    delete(&platform_admin, "acme", &tenant.expect("the tenant").etag).await.expect("deleted");
}

#[tokio::test]
async fn a_deletion_of_the_platform_or_without_the_permission_is_refused() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;

    for (client, tenant, code, expected_reason) in [
        (&platform_admin, "platform", Code::FailedPrecondition, "PLATFORM_TENANT"),
        (&platform_admin, "nowhere", Code::NotFound, "NOT_FOUND"),
        (&acme, "acme", Code::PermissionDenied, "PERMISSION_MISSING"),
    ] {
        let status = delete(client, tenant, "").await.expect_err("refused");
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected_reason), "{tenant}");
    }
}
