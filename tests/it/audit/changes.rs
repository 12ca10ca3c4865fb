//! Audit events that changes write.

use tenantry::proto::v1::{
    DeleteRoleRequest, DeleteUserRequest, DisableUserRequest, EnableUserRequest, RoleLevel,
    UpdateRoleRequest, UpdateTenantRequest, UpdateUserRequest,
};

use crate::harness::{Client, TestApp};

/// Makes one change of each kind. Returns the ids of the user and the role.
async fn change_everything(by: &Client) -> (String, String) {
    let user = by.create_user_without_password("ada@acme.test").await;
    let role = by.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    by.assign(&user, &role).await;
    by.unassign(&user, &role).await;
    let rename = UpdateRoleRequest {
        role_id: role.clone(),
        name: Some("dev".into()),
        ..UpdateRoleRequest::default()
    };
    by.roles().update_role(rename).await.expect("updated");
    let delete = DeleteRoleRequest { role_id: role.clone(), etag: String::new() };
    by.roles().delete_role(delete).await.expect("deleted");
    let rename = UpdateUserRequest {
        user_id: user.clone(),
        display_name: Some("Ada".into()),
        ..UpdateUserRequest::default()
    };
    by.users().update_user(rename).await.expect("updated");
    let user_id = user.clone();
    by.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    let user_id = user.clone();
    by.users().enable_user(EnableUserRequest { user_id }).await.expect("enabled");
    let delete = DeleteUserRequest { user_id: user.clone(), etag: String::new() };
    by.users().delete_user(delete).await.expect("deleted");
    let rename = UpdateTenantRequest { name: Some("New".into()), ..UpdateTenantRequest::default() };
    by.tenants().update_tenant(rename).await.expect("updated");
    (user, role)
}

/// K12: the audit trail matches the committed changes.
#[tokio::test]
async fn each_change_is_recorded_once_with_its_actor_and_target() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let staff = app.platform_admin().await.with("x-tenant-id", &acme.tenant_id);

    for (at, by) in [&acme, &staff].into_iter().enumerate() {
        let (user, role) = change_everything(by).await;
        for (kind, target) in [
            ("user_created", &user),
            ("user_updated", &user),
            ("user_disabled", &user),
            ("user_enabled", &user),
            ("user_deleted", &user),
            ("role_created", &role),
            ("role_updated", &role),
            ("role_deleted", &role),
            ("role_assigned", &user),
            ("role_unassigned", &user),
            ("tenant_updated", &acme.tenant_id),
        ] {
            let mut events = app.recorded(kind).await;
            // Leave out the events of the platform tenant, such as the creation of its first
            // administrator.
            events.retain(|event| event.tenant_id.to_string() == acme.tenant_id);
            assert_eq!(events.len(), at + 1, "{kind}");
            let event = &events[at];
            let text = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
            assert_eq!(event.tenant_id.to_string(), acme.tenant_id, "{kind}");
            assert_eq!(text(event.actor_tenant_id), by.tenant_id, "{kind}");
            assert_eq!(text(event.actor_id), by.user_id, "{kind}");
            assert_eq!(text(event.target_id), *target, "{kind}");
        }
    }
}

/// K12: the audit trail matches the committed changes.
#[tokio::test]
async fn a_refused_change_changes_and_records_nothing() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    acme.create_role("ops", RoleLevel::Member, &[]).await;

    let again = tenantry::proto::v1::CreateRoleRequest {
        name: "ops".into(),
        level: RoleLevel::Member.into(),
        ..Default::default()
    };
    acme.roles().create_role(again).await.expect_err("the name is taken");
    let request = DisableUserRequest { user_id: acme.user_id.clone() };
    acme.users().disable_user(request).await.expect_err("the last administrator");
    assert_eq!(app.recorded("role_created").await.len(), 1);
    assert!(app.recorded("user_disabled").await.is_empty());
}
