//! Tests every method whose policy has a `power` over others. The methods come from the
//! descriptors, so the test fails for a new method without a case in this file, and for a method
//! that does not check the rule for power over others.

use prost::Message;
use serde_json::json;
use tenantry::{
    clock,
    gate::{Access, MethodPolicy, Policies, Power},
    proto::v1::{
        AssignRoleRequest, CreateApiKeyRequest, CreateRoleRequest, DeleteRoleRequest,
        DeleteServiceAccountRequest, DeleteUserRequest, DisableUserRequest, EnableUserRequest,
        RevokeAllSessionsRequest, RevokeApiKeyRequest, RevokeSessionRequest, RoleLevel,
        UnassignRoleRequest, UpdateRoleRequest, UpdateTenantRequest, UpdateUserRequest,
        WhoAmIRequest,
    },
};
use tonic::Code;

use crate::harness::{Client, Method, TestApp, assert_refused, reason, struct_of};

/// The methods whose policy has a `power` over others.
fn methods_with_power() -> Vec<MethodPolicy> {
    let policies = Policies::load().expect("the policies load");
    policies
        .iter()
        .filter(|method| method.power.is_some_and(|power| power != Power::Nothing))
        .cloned()
        .collect()
}

fn permissions(method: &MethodPolicy) -> Vec<String> {
    match &method.access {
        Access::Permission { permissions, .. } => permissions.clone(),
        other => panic!("{}: {other:?}", method.path),
    }
}

/// Objects of a call: a user, a service account with a key, a role that both hold, and a role that
/// nobody holds.
struct Target {
    user: String,
    session: String,
    account: String,
    key: String,
    held_role: String,
    unheld_role: String,
    level: RoleLevel,
    permissions: Vec<String>,
}

impl Target {
    async fn new(admin: &Client, name: &str, level: RoleLevel, permissions: &[&str]) -> Self {
        let held_role = admin.create_role(&format!("{name} held"), level, permissions).await;
        let unheld_role = admin.create_role(&format!("{name} unheld"), level, permissions).await;
        let user = admin.create_user_without_password(&format!("{name}@acme.test")).await;
        let account = admin.create_service_account(name, &[]).await;
        let key = admin.create_api_key(&account).await.api_key.expect("a key").id;
        admin.assign(&user, &held_role).await;
        admin.assign(&account, &held_role).await;
        Self {
            user,
            session: String::new(),
            account,
            key,
            held_role,
            unheld_role,
            level,
            permissions: permissions.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    /// Signs in the user. The session is a copy of that of `template`.
    async fn with_session(mut self, app: &TestApp, template: &Client) -> Self {
        let user = app.create_session(&self.user, template).await;
        let me = user.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
        self.session = me.into_inner().session_id;
        self
    }

    /// A request of a method that gives, takes or uses all rights of the target.
    fn request(&self, method: &str) -> Vec<u8> {
        let (user_id, role_id) = (self.user.clone(), self.held_role.clone());
        let added = [self.permissions.clone(), vec!["more:added".to_owned()]].concat();
        match method {
            "AssignRole" => {
                let role_id = self.unheld_role.clone();
                AssignRoleRequest { user_id, role_id, ..Default::default() }.encode_to_vec()
            }
            "UnassignRole" => {
                UnassignRoleRequest { user_id, role_id, ..Default::default() }.encode_to_vec()
            }
            "CreateRole" => CreateRoleRequest {
                name: "one more".into(),
                level: self.level.into(),
                permissions: self.permissions.clone(),
                ..Default::default()
            }
            .encode_to_vec(),
            "UpdateRole" => UpdateRoleRequest { role_id, permissions: added, ..Default::default() }
                .encode_to_vec(),
            "DeleteRole" => {
                let role_id = self.unheld_role.clone();
                DeleteRoleRequest { role_id, ..Default::default() }.encode_to_vec()
            }
            "UpdateUser" => {
                let email = Some("mine@acme.test".into());
                UpdateUserRequest { user_id, email, ..Default::default() }.encode_to_vec()
            }
            "DisableUser" => DisableUserRequest { user_id }.encode_to_vec(),
            "EnableUser" => EnableUserRequest { user_id }.encode_to_vec(),
            "DeleteUser" => DeleteUserRequest { user_id, ..Default::default() }.encode_to_vec(),
            "RevokeSession" => {
                RevokeSessionRequest { session_id: self.session.clone() }.encode_to_vec()
            }
            "RevokeAllSessions" => RevokeAllSessionsRequest { user_id }.encode_to_vec(),
            "CreateApiKey" => CreateApiKeyRequest {
                service_account_id: self.account.clone(),
                expire_time: Some(clock::timestamp(clock::now() + time::Duration::days(2))),
                ..Default::default()
            }
            .encode_to_vec(),
            "RevokeApiKey" => RevokeApiKeyRequest { api_key_id: self.key.clone() }.encode_to_vec(),
            "DeleteServiceAccount" => {
                let service_account_id = self.account.clone();
                DeleteServiceAccountRequest { service_account_id, ..Default::default() }
                    .encode_to_vec()
            }
            // With self-registration, every new member gets the role `member`.
            "UpdateTenant" => UpdateTenantRequest {
                settings: struct_of(json!({ "self_registration": true })),
                ..Default::default()
            }
            .encode_to_vec(),
            other => panic!("{other} has power over others, but no request in this file"),
        }
    }
}

/// N11: the test covers every method with a `power`. A refused call changes nothing.
#[tokio::test]
async fn a_caller_has_power_only_over_subjects_with_no_more_rights_than_its_own() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let methods = methods_with_power();
    assert!(methods.len() >= 15, "{}", methods.len());
    let target_with_more_permissions =
        Target::new(&acme, "more", RoleLevel::Viewer, &["secret:read"]).await;
    let target_with_more_permissions = target_with_more_permissions.with_session(&app, &acme).await;
    let target_with_higher_level = Target::new(&acme, "above", RoleLevel::Manager, &[]).await;
    let target_with_higher_level = target_with_higher_level.with_session(&app, &acme).await;
    for (number, method) in methods.iter().enumerate() {
        let name = method.path.rsplit('/').next().expect("a name");
        let weak_user = acme.create_user_without_password(&format!("weak{number}@acme.test")).await;
        let required = permissions(method);
        let required: Vec<_> = required.iter().map(String::as_str).collect();
        let role = acme.create_role(&format!("weak{number}"), RoleLevel::Member, &required).await;
        acme.assign(&weak_user, &role).await;
        let weak_client = app.create_session(&weak_user, &acme).await;

        let rows_before = app.rows_of(&acme.tenant_id).await;
        for target in [&target_with_more_permissions, &target_with_higher_level] {
            let reply = Method::call_path(&weak_client, &method.path, target.request(name)).await;
            let status = reply.expect_err(&method.path);
            assert_eq!(status.code(), Code::PermissionDenied, "{}: {status:?}", method.path);
            let reason = reason(&status);
            let reasons = ["GRANT_NOT_HELD", "LEVEL_TOO_HIGH"];
            assert!(reasons.contains(&reason.as_str()), "{}: {reason}", method.path);
        }
        assert_eq!(app.rows_of(&acme.tenant_id).await, rows_before, "{}", method.path);
    }
    for (number, method) in methods.iter().enumerate() {
        let name = method.path.rsplit('/').next().expect("a name");
        let target_name = format!("target{number}");
        let target = Target::new(&acme, &target_name, RoleLevel::Member, &["secret:read"]).await;
        let target = target.with_session(&app, &acme).await;
        let reply = Method::call_path(&acme, &method.path, target.request(name)).await;
        assert!(reply.is_ok(), "{}: {reply:?}", method.path);
        if name == "UpdateUser" {
            acme.users()
                .delete_user(DeleteUserRequest { user_id: target.user, ..Default::default() })
                .await
                .expect("the email is free again");
        }
    }
}

/// N11: the test covers every method that gives or uses rights. A refused call changes nothing.
#[tokio::test]
async fn rights_that_a_caller_gives_or_uses_must_end_with_its_own_rights() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let temporary = acme.create_user_without_password("temporary@acme.test").await;
    acme.assign_for_an_hour(&temporary, &acme.system_role("org_admin").await).await;
    let temporary = app.create_session(&temporary, &acme).await;
    let target = Target::new(&acme, "target", RoleLevel::Member, &["secret:read"]).await;

    let powers = [Some(Power::Gives), Some(Power::Uses)];
    for method in methods_with_power().into_iter().filter(|method| powers.contains(&method.power)) {
        let name = method.path.rsplit('/').next().expect("a name");
        // A role without holders gives nobody a right.
        if name == "CreateRole" {
            continue;
        }
        let rows_before = app.rows_of(&acme.tenant_id).await;
        let reply = Method::call_path(&temporary, &method.path, target.request(name)).await;
        println!("{name}");
        let status = assert_refused(reply, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
        assert!(status.message().contains("expires at"), "{}", status.message());
        assert_eq!(app.rows_of(&acme.tenant_id).await, rows_before, "{name}");
    }
}
