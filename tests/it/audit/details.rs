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

use super::events;
use crate::harness::{Client, PASSWORD, TestApp, mask, struct_of};

fn detail(event: &AuditEvent) -> Value {
    let detail = event.detail.as_ref().expect("a detail");
    Value::Object(protobuf::object("detail", detail).expect("JSON"))
}

/// Detail of the newest event of a kind.
async fn newest(of: &Client, kind: &str) -> Value {
    let events = events(of, &format!("kind = {kind}")).await;
    detail(events.last().expect("an event"))
}

/// Asserts that every key in an event's detail is documented for the kind of the event.
async fn assert_documented(of: &Client) {
    for event in events(of, "").await {
        let kind = EventKind::ALL.iter().find(|kind| kind.as_str() == event.kind);
        let known = kind.expect("a known kind").detail();
        for key in detail(&event).as_object().expect("an object").keys() {
            let is_known = key == "omitted" || known.iter().any(|(name, _)| name == key);
            assert!(is_known, "{} has {key}", event.kind);
        }
    }
}

fn update_role(role_id: &str) -> UpdateRoleRequest {
    UpdateRoleRequest { role_id: role_id.into(), ..UpdateRoleRequest::default() }
}

/// N09: the detail of an event describes the change without personal data.
#[tokio::test]
async fn an_assignment_is_recorded_with_subject_role_scope_and_expiry() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read"]).await;
    let end = clock::now().replace_nanosecond(0).expect("a time") + time::Duration::hours(1);
    let request = AssignRoleRequest {
        user_id: ada.clone(),
        role_id: role.clone(),
        scope: struct_of(json!({ "project": ["p1", "p2"], "tier": 3 })),
        expire_time: Some(clock::timestamp(end)),
        ..AssignRoleRequest::default()
    };
    let reply = acme.roles().assign_role(request).await.expect("assigned").into_inner();
    let scoped = reply.role_assignment.expect("the assignment").id;
    let assigned = json!({
        "role_id": role, "role_name": "ops", "assignment_id": scoped,
        "scope": { "project": ["p1", "p2"], "tier": 3 }, "expire_time": clock::text(end),
    });
    assert_eq!(newest(&acme, "role_assigned").await, assigned);

    acme.assign(&ada, &role).await;
    let everywhere = newest(&acme, "role_assigned").await;
    assert_eq!((&everywhere["scope"], &everywhere["expire_time"]), (&Value::Null, &Value::Null));

    acme.unassign(&ada, &role).await;
    let mut taken = newest(&acme, "role_unassigned").await;
    let list = taken["assignments"].as_array_mut().expect("a list");
    list.sort_by_key(|entry| entry["assignment_id"].to_string());
    let expected = json!({
        "role_id": role, "role_name": "ops",
        "assignments": [
            {
                "assignment_id": scoped, "expire_time": clock::text(end),
                "scope": { "project": ["p1", "p2"], "tier": 3 },
            },
            { "assignment_id": everywhere["assignment_id"] },
        ],
    });
    assert_eq!(taken, expected);
    assert_documented(&acme).await;
}

/// N09: the detail of an event describes the change without personal data.
#[tokio::test]
async fn changes_of_roles_and_tenants_are_recorded_with_old_and_new_values() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let role = acme.create_role("ops", RoleLevel::Member, &["doc:read", "doc:write"]).await;
    let made = json!({
        "name": "ops", "level": "ROLE_LEVEL_MEMBER", "system": false,
        "permissions": ["doc:read", "doc:write"],
    });
    assert_eq!(newest(&acme, "role_created").await, made);
    let request = UpdateRoleRequest {
        name: Some("dev".into()),
        level: Some(RoleLevel::Manager.into()),
        permissions: vec!["doc:delete".into(), "doc:read".into()],
        ..update_role(&role)
    };
    acme.roles().update_role(request).await.expect("updated");
    let changed = json!({
        "role_name": "dev",
        "name": { "from": "ops", "to": "dev" },
        "level": { "from": "ROLE_LEVEL_MEMBER", "to": "ROLE_LEVEL_MANAGER" },
        "permissions_added": ["doc:delete"],
        "permissions_removed": ["doc:write"],
    });
    assert_eq!(newest(&acme, "role_updated").await, changed);
    let delete = DeleteRoleRequest { role_id: role, ..DeleteRoleRequest::default() };
    acme.roles().delete_role(delete).await.expect("deleted");
    let gone = newest(&acme, "role_deleted").await;
    assert_eq!(gone["permissions"], json!(["doc:delete", "doc:read"]));

    let request = UpdateTenantRequest {
        name: Some("Acme Corp".into()),
        settings: struct_of(json!({ "self_registration": true, "support": "ada@acme.test" })),
        ..UpdateTenantRequest::default()
    };
    acme.tenants().update_tenant(request).await.expect("updated");
    let changed = newest(&acme, "tenant_updated").await;
    assert_eq!(changed["name"]["to"], "Acme Corp");
    assert!(changed.get("slug").is_none(), "the slug did not change");
    let known = json!({ "self_registration": { "from": null, "to": true } });
    assert_eq!(changed["settings"], known);
    assert_eq!(changed["settings_changed"], json!(["self_registration", "support"]));
    assert_eq!(newest(&acme, "tenant_created").await["slug"], "acme");
    assert_documented(&acme).await;
}

/// N09: the detail of an event describes the change without personal data.
#[tokio::test]
async fn for_personal_data_only_the_names_of_changed_fields_are_recorded() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let request = CreateUserRequest {
        email: "lovelace@acme.test".into(),
        display_name: "Augusta".into(),
        credential: Some(Credential::Password(PASSWORD.into())),
        ..CreateUserRequest::default()
    };
    let reply = acme.users().create_user(request).await.expect("made").into_inner();
    let ada = reply.user.expect("the user").id;
    let made = json!({
        "fields": ["email", "display_name", "password"], "email_verified": false,
    });
    assert_eq!(newest(&acme, "user_created").await, made);
    let request = UpdateUserRequest {
        user_id: ada.clone(),
        display_name: Some("Augusta".into()),
        email: Some("byron@acme.test".into()),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(request).await.expect("updated");
    assert_eq!(newest(&acme, "user_updated").await, json!({ "fields": ["email"] }));
    let request = UpdateUserRequest {
        user_id: ada.clone(),
        display_name: Some("Ada".into()),
        update_mask: mask(&["display_name"]),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(request).await.expect("updated");
    assert_eq!(newest(&acme, "user_updated").await, json!({ "fields": ["display_name"] }));

    app.anonymous().login(&acme.slug, "byron@acme.test", PASSWORD).await;
    acme.users().disable_user(DisableUserRequest { user_id: ada }).await.expect("disabled");
    assert_eq!(newest(&acme, "user_disabled").await, json!({ "sessions_revoked": 1 }));
    let all = format!("{:?}", events(&acme, "").await);
    for personal in ["lovelace", "byron", "Augusta", "Ada"] {
        assert!(!all.contains(personal), "{personal}");
    }
    assert_documented(&acme).await;
}

/// N09: the detail of an event describes the change without personal data.
#[tokio::test]
async fn a_deletion_records_what_was_deleted_with_it() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let ada = acme.member("ada", &["doc:read"]).await;
    let given = newest(&acme, "role_assigned").await;
    let delete = DeleteUserRequest { user_id: ada.user_id.clone(), ..Default::default() };
    acme.users().delete_user(delete).await.expect("deleted");
    let gone = newest(&acme, "user_deleted").await;
    assert_eq!(gone["sessions_revoked"], 1);
    let lost = json!([{
        "assignment_id": given["assignment_id"], "role_id": given["role_id"],
        "role_name": given["role_name"],
    }]);
    assert_eq!(gone["assignments"], lost);

    let account = acme.create_service_account("billing", &["doc:read"]).await;
    let key = acme.create_api_key(&account).await.api_key.expect("a key");
    let made = newest(&acme, "api_key_created").await;
    assert_eq!((&made["api_key_id"], &made["credential"]), (&json!(key.id), &json!("secret")));
    assert!(made["expire_time"].is_string());
    let delete = DeleteServiceAccountRequest { service_account_id: account, ..Default::default() };
    acme.service_accounts().delete_service_account(delete).await.expect("deleted");
    let gone = newest(&acme, "service_account_deleted").await;
    assert_eq!((&gone["name"], &gone["api_keys"]), (&json!("billing"), &json!([key.id])));
    assert_eq!(gone["assignments"][0]["role_name"], "billing");
    assert_documented(&acme).await;
}

/// N09: an event stays small, whatever the change.
#[tokio::test]
async fn the_detail_of_a_large_change_is_truncated_and_says_so() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let long = |n: usize| format!("resource-with-a-rather-long-name-{n:03}:action");
    let names: Vec<_> = (0..300).map(long).collect();
    let permissions: Vec<_> = names.iter().map(String::as_str).collect();
    let role = acme.create_role("large", RoleLevel::Member, &permissions).await;
    let made = newest(&acme, "role_created").await;
    assert!(made.to_string().len() <= 16 * 1024);
    let kept = made["permissions"].as_array().expect("a list").len();
    assert_eq!(made["omitted"]["permissions"]["items"], 300 - kept);

    let request = UpdateRoleRequest {
        permissions: vec!["doc:read".into()],
        update_mask: mask(&["permissions"]),
        ..update_role(&role)
    };
    acme.roles().update_role(request).await.expect("updated");
    let changed = newest(&acme, "role_updated").await;
    assert_eq!(changed["permissions_added"], json!(["doc:read"]));
    assert!(changed["omitted"]["permissions_removed"]["items"].as_u64() > Some(0));
}

/// N09: changes by the program's commands are recorded like all others.
#[tokio::test]
async fn the_creation_of_the_first_administrator_is_recorded() {
    let app = TestApp::spawn().await;
    let staff = app.platform_admin().await;
    let made = newest(&staff, "user_created").await;
    assert_eq!((&made["by"], &made["role_name"]), (&json!("command"), &json!("platform_admin")));
    assert_eq!(newest(&staff, "tenant_created").await["slug"], "platform");
    let registered = newest(&app.tenant("acme").await, "user_registered").await;
    assert_eq!(registered["role_name"], "org_admin");
    assert_documented(&staff).await;
}
