//! Every method whose policy has a `power` over others, from the descriptors. The test fails for a
//! new method without a case here, and for a method that does not check the rule for power over
//! others.

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

use crate::harness::{Client, Method, TestApp, reason, refused, struct_of};

fn with_power() -> Vec<MethodPolicy> {
    let policies = Policies::load().expect("the table");
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

/// Objects of a call: a user, a service account with a key, a role of both, and a role without
/// holders.
struct Target {
    user: String,
    session: String,
    account: String,
    key: String,
    held: String,
    unheld: String,
    level: RoleLevel,
    permissions: Vec<String>,
}

impl Target {
    async fn new(admin: &Client, name: &str, level: RoleLevel, permissions: &[&str]) -> Self {
        let held = admin.create_role(&format!("{name} held"), level, permissions).await;
        let unheld = admin.create_role(&format!("{name} unheld"), level, permissions).await;
        let user = admin.create_user_without_password(&format!("{name}@acme.test")).await;
        let account = admin.create_service_account(name, &[]).await;
        let key = admin.create_api_key(&account).await.api_key.expect("a key").id;
        admin.assign(&user, &held).await;
        admin.assign(&account, &held).await;
        Self {
            user,
            session: String::new(),
            account,
            key,
            held,
            unheld,
            level,
            permissions: permissions.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    async fn signed_in(mut self, app: &TestApp, like: &Client) -> Self {
        let itself = app.sign_in_as(&self.user, like).await;
        let me = itself.auth().who_am_i(WhoAmIRequest {}).await.expect("signed in");
        self.session = me.into_inner().session_id;
        self
    }

    /// A request of a method that gives, takes or uses all rights of the target.
    fn act(&self, method: &str) -> Vec<u8> {
        let (user_id, role_id) = (self.user.clone(), self.held.clone());
        let more = [self.permissions.clone(), vec!["more:added".to_owned()]].concat();
        match method {
            "AssignRole" => {
                let role_id = self.unheld.clone();
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
            "UpdateRole" => UpdateRoleRequest { role_id, permissions: more, ..Default::default() }
                .encode_to_vec(),
            "DeleteRole" => {
                let role_id = self.unheld.clone();
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
            other => panic!("{other} has power over others, but no act in this file"),
        }
    }
}

/// N11: a caller cannot give or use more rights than it has.
#[tokio::test]
async fn a_caller_that_holds_less_has_no_power_and_one_that_holds_as_much_has() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let methods = with_power();
    assert!(methods.len() >= 15, "{}", methods.len());
    let more = Target::new(&acme, "more", RoleLevel::Viewer, &["secret:read"]).await;
    let more = more.signed_in(&app, &acme).await;
    let above = Target::new(&acme, "above", RoleLevel::Manager, &[]).await;
    let above = above.signed_in(&app, &acme).await;
    for (at, method) in methods.iter().enumerate() {
        let name = method.path.rsplit('/').next().expect("a name");
        let weak = acme.create_user_without_password(&format!("weak{at}@acme.test")).await;
        let needed = permissions(method);
        let needed: Vec<_> = needed.iter().map(String::as_str).collect();
        let role = acme.create_role(&format!("weak{at}"), RoleLevel::Member, &needed).await;
        acme.assign(&weak, &role).await;
        let weak = app.sign_in_as(&weak, &acme).await;

        let before = app.rows_of(&acme.tenant_id).await;
        for target in [&more, &above] {
            let reply = Method::call_path(&weak, &method.path, target.act(name)).await;
            let status = reply.expect_err(&method.path);
            assert_eq!(status.code(), Code::PermissionDenied, "{}: {status:?}", method.path);
            let reason = reason(&status);
            let expected = ["GRANT_NOT_HELD", "LEVEL_TOO_HIGH"];
            assert!(expected.contains(&reason.as_str()), "{}: {reason}", method.path);
        }
        assert_eq!(app.rows_of(&acme.tenant_id).await, before, "{}", method.path);
    }
    for (at, method) in methods.iter().enumerate() {
        let name = method.path.rsplit('/').next().expect("a name");
        let target = format!("target{at}");
        let target = Target::new(&acme, &target, RoleLevel::Member, &["secret:read"]).await;
        let target = target.signed_in(&app, &acme).await;
        let reply = Method::call_path(&acme, &method.path, target.act(name)).await;
        assert!(reply.is_ok(), "{}: {reply:?}", method.path);
        if name == "UpdateUser" {
            acme.users()
                .delete_user(DeleteUserRequest { user_id: target.user, ..Default::default() })
                .await
                .expect("the email is free again");
        }
    }
}

/// N11: a caller cannot give or use more rights than it has.
#[tokio::test]
async fn acts_that_give_or_use_rights_must_end_with_the_callers_own() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let temporary = acme.create_user_without_password("temporary@acme.test").await;
    acme.assign_for_an_hour(&temporary, &acme.system_role("org_admin").await).await;
    let temporary = app.sign_in_as(&temporary, &acme).await;
    let target = Target::new(&acme, "target", RoleLevel::Member, &["secret:read"]).await;

    let lasting = [Some(Power::Gives), Some(Power::Uses)];
    for method in with_power().into_iter().filter(|method| lasting.contains(&method.power)) {
        let name = method.path.rsplit('/').next().expect("a name");
        // A role without holders gives nobody a right.
        if name == "CreateRole" {
            continue;
        }
        let before = app.rows_of(&acme.tenant_id).await;
        let reply = Method::call_path(&temporary, &method.path, target.act(name)).await;
        println!("{name}");
        let status = refused(reply, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
        assert!(status.message().contains("Z at the latest"), "{}", status.message());
        assert_eq!(app.rows_of(&acme.tenant_id).await, before, "{name}");
    }
}
