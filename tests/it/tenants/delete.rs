//! TenantService.DeleteTenant

use tenantry::proto::v1::{DeleteTenantRequest, GetTenantRequest, WhoAmIRequest};
use tonic::{Code, Status};

use crate::harness::{Client, TestApp, reason, refused};

async fn delete(client: &Client, tenant: &str, etag: &str) -> Result<(), Status> {
    let request = DeleteTenantRequest { tenant: tenant.into(), etag: etag.into() };
    client.tenants().delete_tenant(request).await.map(drop)
}

#[tokio::test]
async fn it_deletes_everything_except_the_audit_trail() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    acme.member("ada", &["doc:read"]).await;
    let staff = app.platform_admin().await;
    let audit = "select count(*) from audit_events where tenant_id = $1";
    let recorded = app.count(audit, &acme.tenant_id).await;

    delete(&staff, "acme", "").await.expect("deleted");
    for sql in [
        "select count(*) from tenants where tenant_id = $1",
        "select count(*) from users where tenant_id = $1",
        "select count(*) from credentials where tenant_id = $1",
        "select count(*) from roles where tenant_id = $1",
        "select count(*) from role_assignments where tenant_id = $1",
        "select count(*) from sessions where tenant_id = $1",
        "select count(*) from idempotency_records where tenant_id = $1",
    ] {
        assert_eq!(app.count(sql, &acme.tenant_id).await, 0, "{sql}");
    }
    assert_eq!(app.count(audit, &acme.tenant_id).await, recorded + 1);
    let event = &app.recorded("tenant_deleted").await[0];
    assert_eq!(event.tenant_id.to_string(), acme.tenant_id);
    assert_eq!(event.target_id, Some(event.tenant_id));
    assert_eq!(event.actor_id.map(|id| id.to_string()), Some(staff.user_id.clone()));

    let me = acme.auth().who_am_i(WhoAmIRequest {}).await;
    refused(me, Code::Unauthenticated, "TOKEN_INVALID");
    let again = delete(&staff, "acme", "").await.expect_err("deleted already");
    assert_eq!((again.code(), reason(&again).as_str()), (Code::NotFound, "NOT_FOUND"));
    assert!(other.may("", "doc:read").await);
}

#[tokio::test]
async fn a_new_tenant_with_the_same_slug_inherits_nothing() {
    let app = TestApp::spawn().await;
    let first = app.tenant("acme").await;
    let staff = app.platform_admin().await;
    delete(&staff, "acme", "").await.expect("deleted");

    let second = app.tenant("acme").await;
    assert_ne!(first.tenant_id, second.tenant_id);
    assert!(!second.may(&first.user_id, "doc:read").await);
    let me = first.auth().who_am_i(WhoAmIRequest {}).await;
    refused(me, Code::Unauthenticated, "TOKEN_INVALID");
}

#[tokio::test]
async fn a_stale_etag_prevents_the_deletion() {
    let app = TestApp::spawn().await;
    app.tenant("acme").await;
    let staff = app.platform_admin().await;
    let get = GetTenantRequest { tenant: "acme".into() };
    let tenant = staff.tenants().get_tenant(get).await.expect("found").into_inner().tenant;

    let stale = delete(&staff, "acme", "v0").await.expect_err("stale");
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    delete(&staff, "acme", &tenant.expect("the tenant").etag).await.expect("deleted");
}

#[tokio::test]
async fn the_platform_is_not_deleted_and_only_platform_staff_delete() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await;

    for (by, tenant, code, wanted) in [
        (&staff, "platform", Code::FailedPrecondition, "PLATFORM_TENANT"),
        (&staff, "nowhere", Code::NotFound, "NOT_FOUND"),
        (&acme, "acme", Code::PermissionDenied, "PERMISSION_MISSING"),
    ] {
        let status = delete(by, tenant, "").await.expect_err("refused");
        assert_eq!((status.code(), reason(&status).as_str()), (code, wanted), "{tenant}");
    }
}
