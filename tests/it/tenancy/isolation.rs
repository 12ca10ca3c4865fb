//! Another tenant's object gets the same answer as an unknown id, byte for byte.

use prost_reflect::Value;
use tenantry::proto::v1::{
    AssignRoleRequest, BatchCheckItem, BatchCheckRequest, DecisionReason, LookupUserRequest,
    RoleLevel, UnassignRoleRequest,
};
use tonic::Code;

use crate::harness::{Client, Ids, TestApp, methods, refused};

async fn two_tenants(app: &TestApp) -> (Client, Ids, Client, Ids) {
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let a_role = a.create_role("ops", RoleLevel::Member, &["user:read"]).await;
    let b_role = b.create_role("ops", RoleLevel::Member, &["user:read"]).await;
    let member = a.member("member", &[]).await;
    a.assign(&member.user_id, &a_role).await;
    let (a_ids, b_ids) = (Ids::of(&member, &a_role), Ids::of(&b, &b_role));
    (a, a_ids, b, b_ids)
}

/// D02: answers do not reveal the ids of other tenants.
#[tokio::test]
async fn another_tenants_ids_are_answered_like_unknown_ids() {
    let app = TestApp::spawn().await;
    let (a, theirs, b, own) = two_tenants(&app).await;
    let before = app.rows_of(&a.tenant_id).await;

    let mut seen = 0;
    for method in methods() {
        for field in method.id_fields() {
            // First only this id belongs to the other tenant, then all ids do.
            let pairs = [
                (own.with(field, &theirs), own.with(field, &Ids::random())),
                (theirs.clone(), theirs.with(field, &Ids::random())),
            ];
            for (theirs, nobodys) in pairs {
                let (theirs, nobodys) = (method.sample(&theirs), method.sample(&nobodys));
                let answers = (method.answer(&b, &theirs).await, method.answer(&b, &nobodys).await);
                assert_eq!(answers.0, answers.1, "{} {field}", method.path());
                seen += 1;
            }
        }
    }
    assert!(seen > 50, "{seen}");
    assert_eq!(app.rows_of(&a.tenant_id).await, before);
}

/// D02: the same holds for tenant slugs and tokens.
#[tokio::test]
async fn another_tenants_slug_and_tokens_are_answered_like_unknown_ones() {
    let app = TestApp::spawn().await;
    let (a, _, b, own) = two_tenants(&app).await;
    let member_without_permission = b.member("nobody", &[]).await;
    let before = app.rows_of(&a.tenant_id).await;
    let lost = a.tokens.access_token.clone() + "x";

    for method in methods() {
        for (field, theirs, nobodys) in [
            ("tenant", "a", "nowhere"),
            ("token", a.tokens.access_token.as_str(), lost.as_str()),
            ("token", a.tokens.refresh_token.as_str(), lost.as_str()),
            ("access_token", a.tokens.access_token.as_str(), lost.as_str()),
        ] {
            if method.0.input().get_field_by_name(field).is_none() {
                continue;
            }
            let ask = |value: &str| {
                let mut message = method.sample(&own);
                if field == "access_token" {
                    message.clear_field_by_name("user_id");
                }
                message.set_field_by_name(field, Value::String(value.to_owned()));
                message
            };
            for client in [&b, &member_without_permission] {
                let theirs = method.answer(client, &ask(theirs)).await;
                let nobodys = method.answer(client, &ask(nobodys)).await;
                assert_eq!(theirs, nobodys, "{} {field}", method.path());
            }
        }
    }
    assert_eq!(app.rows_of(&a.tenant_id).await, before);
}

#[tokio::test]
async fn another_tenants_emails_are_not_found() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let lookup = |email: &str| LookupUserRequest { email: email.into() };
    let theirs = b.users().lookup_user(lookup(&a.email)).await;
    let theirs = refused(theirs, Code::NotFound, "NOT_FOUND");
    let nobodys = b.users().lookup_user(lookup("nobody@a.test")).await;
    let nobodys = refused(nobodys, Code::NotFound, "NOT_FOUND");
    assert_eq!(theirs.details(), nobodys.details());
    // The same address belongs to a different user in each tenant.
    let id = b.create_user(&a.email).await;
    let found = b.users().lookup_user(lookup(&a.email)).await.expect("found").into_inner();
    assert_eq!(found.user.expect("a user").id, id);
    assert_ne!(id, a.user_id);
}

/// D08: an object of another tenant gets the same answer as an unknown object.
#[tokio::test]
async fn nothing_refers_across_tenants() {
    let app = TestApp::spawn().await;
    let (_, theirs, b, own) = two_tenants(&app).await;
    let before = app.row_counts().await;
    for (user, role) in [(&theirs, &own), (&own, &theirs), (&theirs, &theirs)] {
        let assign = AssignRoleRequest {
            user_id: user.0["user_id"].clone(),
            role_id: role.0["role_id"].clone(),
            ..AssignRoleRequest::default()
        };
        refused(b.roles().assign_role(assign).await, Code::NotFound, "NOT_FOUND");
        let unassign = UnassignRoleRequest {
            user_id: user.0["user_id"].clone(),
            role_id: role.0["role_id"].clone(),
            ..UnassignRoleRequest::default()
        };
        refused(b.roles().unassign_role(unassign).await, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(app.row_counts().await, before);
}

/// D09: a batch reveals nothing about users of other tenants.
#[tokio::test]
async fn a_batch_decides_for_own_users_and_denies_all_others() {
    let app = TestApp::shared();
    let (a, theirs, b, own) = two_tenants(&app).await;
    let nobodys = Ids::random();
    let item = |user_id: &str| BatchCheckItem {
        user_id: user_id.into(),
        permission: "user:read".into(),
        correlation_id: user_id.into(),
        ..BatchCheckItem::default()
    };
    let users = [
        own.0["user_id"].as_str(),
        theirs.0["user_id"].as_str(),
        nobodys.0["user_id"].as_str(),
        a.user_id.as_str(),
        own.0["user_id"].as_str(),
    ];
    let request =
        BatchCheckRequest { items: users.map(item).to_vec(), ..BatchCheckRequest::default() };
    let results = b.permissions().batch_check(request).await.expect("answers").into_inner().results;
    let decisions: Vec<_> = results.iter().map(|r| (r.allowed, r.reason())).collect();
    let (yes, no) = ((true, DecisionReason::Granted), (false, DecisionReason::NotGranted));
    assert_eq!(decisions, [yes, no, no, no, yes]);
    assert!(results.iter().all(|result| result.error.is_none()));
    assert!(results.iter().map(|result| result.correlation_id.as_str()).eq(users));
}
