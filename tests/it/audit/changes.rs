//! Audit events that changes write.

use tenantry::proto::v1::{
    DeleteRoleRequest, DeleteUserRequest, DisableUserRequest, EnableUserRequest, RoleLevel,
    UpdateRoleRequest, UpdateTenantRequest, UpdateUserRequest,
};

use crate::harness::{Client, TestApp};

/// Creates a user and a role, changes and deletes them, and changes the tenant. Returns the ids of
/// the user and the role.
async fn change_everything(admin: &Client) -> (String, String) {
    let user = admin.create_user_without_password("ada@acme.test").await;
    let role = admin.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    admin.assign(&user, &role).await;
    admin.unassign(&user, &role).await;
    let rename = UpdateRoleRequest {
        role_id: role.clone(),
        name: Some("dev".into()),
        ..UpdateRoleRequest::default()
    };
    admin.roles().update_role(rename).await.expect("updated");
    let delete = DeleteRoleRequest { role_id: role.clone(), etag: String::new() };
    admin.roles().delete_role(delete).await.expect("deleted");
    let rename = UpdateUserRequest {
        user_id: user.clone(),
        display_name: Some("Ada".into()),
        ..UpdateUserRequest::default()
    };
    admin.users().update_user(rename).await.expect("updated");
    let user_id = user.clone();
    admin.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    let user_id = user.clone();
    admin.users().enable_user(EnableUserRequest { user_id }).await.expect("enabled");
    let delete = DeleteUserRequest { user_id: user.clone(), etag: String::new() };
    admin.users().delete_user(delete).await.expect("deleted");
    let rename = UpdateTenantRequest { name: Some("New".into()), ..UpdateTenantRequest::default() };
    admin.tenants().update_tenant(rename).await.expect("updated");
    (user, role)
}

/// K12: the event has the actor, the tenant of the actor and the target of the change.
#[tokio::test]
async fn each_change_is_recorded_once_with_its_actor_and_target() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin_in_acme =
        app.platform_admin().await.with_metadata("x-tenant-id", &acme.tenant_id);

    for (round, actor) in [&acme, &platform_admin_in_acme].into_iter().enumerate() {
        let (user, role) = change_everything(actor).await;
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
            let mut events = app.audit_events(kind).await;
            // Leave out the events of the platform tenant, such as the creation of its first
            // administrator.
            events.retain(|event| event.tenant_id.to_string() == acme.tenant_id);
            assert_eq!(events.len(), round + 1, "{kind}");
            let event = &events[round];
            let id_text = |id: Option<uuid::Uuid>| id.map(|id| id.to_string()).unwrap_or_default();
            assert_eq!(event.tenant_id.to_string(), acme.tenant_id, "{kind}");
            assert_eq!(id_text(event.actor_tenant_id), actor.tenant_id, "{kind}");
            assert_eq!(id_text(event.actor_id), actor.user_id, "{kind}");
            assert_eq!(id_text(event.target_id), *target, "{kind}");
        }
    }
}

/// K12: a refused creation and a refused disabling write no event of a change.
#[tokio::test]
async fn a_refused_change_is_not_recorded_as_a_change() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    acme.create_role("ops", RoleLevel::Member, &[]).await;

    let duplicate = tenantry::proto::v1::CreateRoleRequest {
        name: "ops".into(),
        level: RoleLevel::Member.into(),
        ..Default::default()
    };
    acme.roles().create_role(duplicate).await.expect_err("the name is taken");
    let request = DisableUserRequest { user_id: acme.user_id.clone() };
    acme.users().disable_user(request).await.expect_err("the last administrator stays enabled");
    assert_eq!(app.audit_events("role_created").await.len(), 1);
    assert!(app.audit_events("user_disabled").await.is_empty());
}
