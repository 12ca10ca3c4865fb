//! N09: an event's detail has the old and new values of a change, and no personal data.

use serde_json::{Value, json};
use tenantry::{
    EventKind, clock,
    proto::{
        json as protobuf,
        v1::{
            AssignRoleRequest, AuditEvent, CreateUserRequest, DeleteRoleRequest,
            DeleteServiceAccountRequest, DeleteUserRequest, DisableUserRequest, RoleLevel,
            UpdateRoleRequest, UpdateTenantRequest, UpdateUserRequest,
            create_user_request::Credential,
        },
    },
};

use super::events_oldest_first;
use crate::harness::{Client, PASSWORD, TestApp, mask, struct_of};

fn detail(event: &AuditEvent) -> Value {
    let detail = event.detail.as_ref().expect("the event has a detail");
    Value::Object(protobuf::object("detail", detail).expect("JSON"))
}

/// Detail of the newest event of a kind.
async fn newest_detail(admin: &Client, kind: &str) -> Value {
    let events = events_oldest_first(admin, &format!("kind = {kind}")).await;
    detail(events.last().expect("an event"))
}

/// Asserts that every key in an event's detail is documented for the kind of the event.
async fn assert_details_documented(admin: &Client) {
    for event in events_oldest_first(admin, "").await {
        let kind = EventKind::ALL.iter().find(|kind| kind.as_str() == event.kind);
        let documented = kind.expect("a known kind").detail();
        for key in detail(&event).as_object().expect("an object").keys() {
            let is_documented = key == "omitted" || documented.iter().any(|(name, _)| name == key);
            assert!(is_documented, "{}: {key} is not documented", event.kind);
        }
    }
}

fn update_role_request(role_id: &str) -> UpdateRoleRequest {
    UpdateRoleRequest { role_id: role_id.into(), ..UpdateRoleRequest::default() }
}

/// N09: an unassignment is recorded with the values of the ended assignments.
#[tokio::test]
async fn an_assignment_is_recorded_with_subject_role_scope_and_expiry() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let expire_time =
        clock::now().replace_nanosecond(0).expect("0 is in range") + time::Duration::hours(1);
    let request = AssignRoleRequest {
        user_id: ada.clone(),
        role_id: role.clone(),
        scope: struct_of(json!({ "project": ["p1", "p2"], "tier": 3 })),
        expire_time: Some(clock::timestamp(expire_time)),
        ..AssignRoleRequest::default()
    };
    let reply = acme.roles().assign_role(request).await.expect("assigned").into_inner();
    let scoped_assignment_id = reply.role_assignment.expect("the assignment").id;
    let expected = json!({
        "role_id": role, "role_name": "ops", "assignment_id": scoped_assignment_id,
        "scope": { "project": ["p1", "p2"], "tier": 3 }, "expire_time": clock::rfc3339(expire_time),
    });
    assert_eq!(newest_detail(&acme, "role_assigned").await, expected);

    acme.assign(&ada, &role).await;
    let unscoped = newest_detail(&acme, "role_assigned").await;
    assert_eq!((&unscoped["scope"], &unscoped["expire_time"]), (&Value::Null, &Value::Null));

    acme.unassign(&ada, &role).await;
    let mut unassigned = newest_detail(&acme, "role_unassigned").await;
    let assignments = unassigned["assignments"].as_array_mut().expect("a list");
    assignments.sort_by_key(|entry| entry["assignment_id"].to_string());
    let expected = json!({
        "role_id": role, "role_name": "ops",
        "assignments": [
            {
                "assignment_id": scoped_assignment_id, "expire_time": clock::rfc3339(expire_time),
                "scope": { "project": ["p1", "p2"], "tier": 3 },
            },
            { "assignment_id": unscoped["assignment_id"] },
        ],
    });
    assert_eq!(unassigned, expected);
    assert_details_documented(&acme).await;
}

/// N09: fields that did not change are left out, and so are the values of settings that the service
/// does not read.
#[tokio::test]
async fn changes_of_roles_and_tenants_are_recorded_with_old_and_new_values() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read", "doc:write"]).await;
    let created_detail = json!({
        "name": "ops", "level": "ROLE_LEVEL_MEMBER", "system": false,
        "permissions": ["doc:read", "doc:write"],
    });
    assert_eq!(newest_detail(&acme, "role_created").await, created_detail);
    let request = UpdateRoleRequest {
        name: Some("dev".into()),
        level: Some(RoleLevel::Manager.into()),
        permissions: vec!["doc:delete".into(), "doc:read".into()],
        ..update_role_request(&role)
    };
    acme.roles().update_role(request).await.expect("updated");
    let changed_detail = json!({
        "role_name": "dev",
        "name": { "from": "ops", "to": "dev" },
        "level": { "from": "ROLE_LEVEL_MEMBER", "to": "ROLE_LEVEL_MANAGER" },
        "permissions_added": ["doc:delete"],
        "permissions_removed": ["doc:write"],
    });
    assert_eq!(newest_detail(&acme, "role_updated").await, changed_detail);
    let delete = DeleteRoleRequest { role_id: role, ..DeleteRoleRequest::default() };
    acme.roles().delete_role(delete).await.expect("deleted");
    let deleted_detail = newest_detail(&acme, "role_deleted").await;
    assert_eq!(deleted_detail["permissions"], json!(["doc:delete", "doc:read"]));

    let request = UpdateTenantRequest {
        name: Some("Acme Corp".into()),
        settings: struct_of(json!({ "self_registration": true, "support": "ada@acme.test" })),
        ..UpdateTenantRequest::default()
    };
    acme.tenants().update_tenant(request).await.expect("updated");
    let changed_detail = newest_detail(&acme, "tenant_updated").await;
    assert_eq!(changed_detail["name"]["to"], "Acme Corp");
    assert!(changed_detail.get("slug").is_none(), "the slug did not change");
    // The service does not read the setting `support`, so its value is not recorded.
    let expected = json!({ "self_registration": { "from": null, "to": true } });
    assert_eq!(changed_detail["settings"], expected);
    assert_eq!(changed_detail["settings_changed"], json!(["self_registration", "support"]));
    assert_eq!(newest_detail(&acme, "tenant_created").await["slug"], "acme");
    assert_details_documented(&acme).await;
}

/// N09: no event contains an email or a display name.
#[tokio::test]
async fn for_personal_data_only_the_names_of_changed_fields_are_recorded() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let request = CreateUserRequest {
        email: "lovelace@acme.test".into(),
        display_name: "Augusta".into(),
        credential: Some(Credential::Password(PASSWORD.into())),
        ..CreateUserRequest::default()
    };
    let reply = acme.users().create_user(request).await.expect("created").into_inner();
    let ada = reply.user.expect("the user").id;
    let created_detail = json!({
        "fields": ["email", "display_name", "password"], "email_verified": false,
    });
    assert_eq!(newest_detail(&acme, "user_created").await, created_detail);
    let request = UpdateUserRequest {
        user_id: ada.clone(),
        display_name: Some("Augusta".into()),
        email: Some("byron@acme.test".into()),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(request).await.expect("updated");
    assert_eq!(newest_detail(&acme, "user_updated").await, json!({ "fields": ["email"] }));
    let request = UpdateUserRequest {
        user_id: ada.clone(),
        display_name: Some("Ada".into()),
        update_mask: mask(&["display_name"]),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(request).await.expect("updated");
    assert_eq!(newest_detail(&acme, "user_updated").await, json!({ "fields": ["display_name"] }));

    app.anonymous().login(&acme.slug, "byron@acme.test", PASSWORD).await;
    acme.users().disable_user(DisableUserRequest { user_id: ada }).await.expect("disabled");
    assert_eq!(newest_detail(&acme, "user_disabled").await, json!({ "sessions_revoked": 1 }));
    let all_events = format!("{:?}", events_oldest_first(&acme, "").await);
    for personal in ["lovelace", "byron", "Augusta", "Ada"] {
        assert!(!all_events.contains(personal), "{personal}");
    }
    assert_details_documented(&acme).await;
}

/// N09: one event describes the deleted object and all objects that were deleted with it.
#[tokio::test]
async fn a_deletion_records_the_assignments_and_keys_that_it_deletes() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let assigned = newest_detail(&acme, "role_assigned").await;
    let delete = DeleteUserRequest { user_id: ada.user_id.clone(), ..Default::default() };
    acme.users().delete_user(delete).await.expect("deleted");
    let deleted_detail = newest_detail(&acme, "user_deleted").await;
    assert_eq!(deleted_detail["sessions_revoked"], 1);
    let deleted_assignments = json!([{
        "assignment_id": assigned["assignment_id"], "role_id": assigned["role_id"],
        "role_name": assigned["role_name"],
    }]);
    assert_eq!(deleted_detail["assignments"], deleted_assignments);

    let account = acme.create_service_account("billing", &["doc:read"]).await;
    let key = acme.create_api_key(&account).await.api_key.expect("a key");
    let key_created = newest_detail(&acme, "api_key_created").await;
    assert_eq!(
        (&key_created["api_key_id"], &key_created["credential"]),
        (&json!(key.id), &json!("secret"))
    );
    assert!(key_created["expire_time"].is_string());
    let delete = DeleteServiceAccountRequest { service_account_id: account, ..Default::default() };
    acme.service_accounts().delete_service_account(delete).await.expect("deleted");
    let deleted_detail = newest_detail(&acme, "service_account_deleted").await;
    assert_eq!(
        (&deleted_detail["name"], &deleted_detail["api_keys"]),
        (&json!("billing"), &json!([key.id]))
    );
    assert_eq!(deleted_detail["assignments"][0]["role_name"], "billing");
    assert_details_documented(&acme).await;
}

/// N09: the detail of an event has at most 16 KiB.
#[tokio::test]
async fn a_truncated_detail_has_the_number_of_omitted_items() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let permission = |n: usize| format!("resource-with-a-rather-long-name-{n:03}:action");
    let names: Vec<_> = (0..300).map(permission).collect();
    let permissions: Vec<_> = names.iter().map(String::as_str).collect();
    let role = acme.create_role("large", RoleLevel::Member, &permissions).await;
    let created_detail = newest_detail(&acme, "role_created").await;
    assert!(created_detail.to_string().len() <= 16 * 1024);
    let listed_count = created_detail["permissions"].as_array().expect("a list").len();
    assert_eq!(created_detail["omitted"]["permissions"]["items"], 300 - listed_count);

    let request = UpdateRoleRequest {
        permissions: vec!["doc:read".into()],
        update_mask: mask(&["permissions"]),
        ..update_role_request(&role)
    };
    acme.roles().update_role(request).await.expect("updated");
    let changed_detail = newest_detail(&acme, "role_updated").await;
    assert_eq!(changed_detail["permissions_added"], json!(["doc:read"]));
    assert!(changed_detail["omitted"]["permissions_removed"]["items"].as_u64() > Some(0));
}

/// N09: changes by the program's commands are recorded like changes by calls.
#[tokio::test]
async fn the_creation_of_the_first_administrator_is_recorded() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let created_detail = newest_detail(&platform_admin, "user_created").await;
    assert_eq!(
        (&created_detail["by"], &created_detail["role_name"]),
        (&json!("command"), &json!("platform_admin"))
    );
    assert_eq!(newest_detail(&platform_admin, "tenant_created").await["slug"], "platform");
    let registered = newest_detail(&app.create_tenant("acme").await, "user_registered").await;
    assert_eq!(registered["role_name"], "org_admin");
    assert_details_documented(&platform_admin).await;
}
