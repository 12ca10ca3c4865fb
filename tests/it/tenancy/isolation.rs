//! A call with the id of another tenant's object gets the same response, byte for byte, as a call
//! with an unknown id.

use prost_reflect::Value;
use tenantry::proto::v1::{
    AssignRoleRequest, BatchCheckItem, BatchCheckRequest, DecisionReason, LookupUserRequest,
    RoleLevel, UnassignRoleRequest,
};
use tonic::Code;

use crate::harness::{Client, Ids, TestApp, assert_refused, methods};

async fn create_two_tenants(app: &TestApp) -> (Client, Ids, Client, Ids) {
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let a_role = a.create_role("ops", RoleLevel::Member, &["user:read"]).await;
    let b_role = b.create_role("ops", RoleLevel::Member, &["user:read"]).await;
    let member = a.create_member("member", &[]).await;
    a.assign(&member.user_id, &a_role).await;
    let (a_ids, b_ids) = (Ids::of_client(&member, &a_role), Ids::of_client(&b, &b_role));
    (a, a_ids, b, b_ids)
}

/// D02: responses do not reveal the ids of other tenants.
#[tokio::test]
async fn ids_of_another_tenant_get_the_same_response_as_unknown_ids() {
    let app = TestApp::spawn().await;
    let (a, ids_of_a, b, ids_of_b) = create_two_tenants(&app).await;
    let rows_before = app.rows_of(&a.tenant_id).await;

    let mut comparisons = 0;
    for method in methods() {
        for field in method.id_fields() {
            // In the first pair one id belongs to the other tenant, in the second pair all ids do.
            let pairs = [
                (ids_of_b.with_id_of(field, &ids_of_a), ids_of_b.with_id_of(field, &Ids::random())),
                (ids_of_a.clone(), ids_of_a.with_id_of(field, &Ids::random())),
            ];
            for (ids, unknown_ids) in pairs {
                let (message, unknown_message) = (method.sample(&ids), method.sample(&unknown_ids));
                let responses = (
                    method.call_comparable(&b, &message).await,
                    method.call_comparable(&b, &unknown_message).await,
                );
                assert_eq!(responses.0, responses.1, "{} {field}", method.path());
                comparisons += 1;
            }
        }
    }
    assert!(comparisons > 50, "{comparisons}");
    assert_eq!(app.rows_of(&a.tenant_id).await, rows_before);
}

/// D02: responses do not reveal the slugs and tokens of other tenants.
#[tokio::test]
async fn the_slug_and_tokens_of_another_tenant_get_the_same_response_as_unknown_ones() {
    let app = TestApp::spawn().await;
    let (a, _, b, ids_of_b) = create_two_tenants(&app).await;
    let member_without_permission = b.create_member("nobody", &[]).await;
    let rows_before = app.rows_of(&a.tenant_id).await;
    let unknown_token = a.tokens.access_token.clone() + "x";

    for method in methods() {
        for (field, value, unknown_value) in [
            ("tenant", "a", "nowhere"),
            ("token", a.tokens.access_token.as_str(), unknown_token.as_str()),
            ("token", a.tokens.refresh_token.as_str(), unknown_token.as_str()),
            ("access_token", a.tokens.access_token.as_str(), unknown_token.as_str()),
        ] {
            if method.0.input().get_field_by_name(field).is_none() {
                continue;
            }
            let message_with = |value: &str| {
                let mut message = method.sample(&ids_of_b);
                if field == "access_token" {
                    message.clear_field_by_name("user_id");
                }
                message.set_field_by_name(field, Value::String(value.to_owned()));
                message
            };
            for client in [&b, &member_without_permission] {
                let answer = method.call_comparable(client, &message_with(value)).await;
                let unknown_answer =
                    method.call_comparable(client, &message_with(unknown_value)).await;
                assert_eq!(answer, unknown_answer, "{} {field}", method.path());
            }
        }
    }
    assert_eq!(app.rows_of(&a.tenant_id).await, rows_before);
}

#[tokio::test]
async fn another_tenants_emails_are_not_found() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let lookup_request = |email: &str| LookupUserRequest { email: email.into() };
    let reply = b.users().lookup_user(lookup_request(&a.email)).await;
    let status = assert_refused(reply, Code::NotFound, "NOT_FOUND");
    let reply = b.users().lookup_user(lookup_request("nobody@a.test")).await;
    let unknown_status = assert_refused(reply, Code::NotFound, "NOT_FOUND");
    assert_eq!(status.details(), unknown_status.details());
    // Each tenant can have a different user with the same address.
    let id = b.create_user(&a.email).await;
    let response =
        b.users().lookup_user(lookup_request(&a.email)).await.expect("found").into_inner();
    assert_eq!(response.user.expect("a user").id, id);
    assert_ne!(id, a.user_id);
}

/// D08: the user, the role or both belong to another tenant.
#[tokio::test]
async fn a_role_cannot_be_assigned_or_unassigned_across_tenants() {
    let app = TestApp::spawn().await;
    let (_, ids_of_a, b, ids_of_b) = create_two_tenants(&app).await;
    let counts_before = app.row_counts().await;
    for (user_ids, role_ids) in
        [(&ids_of_a, &ids_of_b), (&ids_of_b, &ids_of_a), (&ids_of_a, &ids_of_a)]
    {
        let assign = AssignRoleRequest {
            user_id: user_ids.0["user_id"].clone(),
            role_id: role_ids.0["role_id"].clone(),
            ..AssignRoleRequest::default()
        };
        assert_refused(b.roles().assign_role(assign).await, Code::NotFound, "NOT_FOUND");
        let unassign = UnassignRoleRequest {
            user_id: user_ids.0["user_id"].clone(),
            role_id: role_ids.0["role_id"].clone(),
            ..UnassignRoleRequest::default()
        };
        assert_refused(b.roles().unassign_role(unassign).await, Code::NotFound, "NOT_FOUND");
    }
    assert_eq!(app.row_counts().await, counts_before);
}

/// D09: a batch reveals nothing about users of other tenants.
#[tokio::test]
async fn a_batch_denies_all_users_of_other_tenants() {
    let app = TestApp::shared();
    let (a, ids_of_a, b, ids_of_b) = create_two_tenants(&app).await;
    let unknown_ids = Ids::random();
    let batch_item = |user_id: &str| BatchCheckItem {
        user_id: user_id.into(),
        permission: "user:read".into(),
        correlation_id: user_id.into(),
        ..BatchCheckItem::default()
    };
    let users = [
        ids_of_b.0["user_id"].as_str(),
        ids_of_a.0["user_id"].as_str(),
        unknown_ids.0["user_id"].as_str(),
        a.user_id.as_str(),
        ids_of_b.0["user_id"].as_str(),
    ];
    let request =
        BatchCheckRequest { items: users.map(batch_item).to_vec(), ..BatchCheckRequest::default() };
    let results = b.permissions().batch_check(request).await.expect("answers").into_inner().results;
    let decisions: Vec<_> = results.iter().map(|r| (r.allowed, r.reason())).collect();
    let (granted, not_granted) =
        ((true, DecisionReason::Granted), (false, DecisionReason::NotGranted));
    assert_eq!(decisions, [granted, not_granted, not_granted, not_granted, granted]);
    assert!(results.iter().all(|result| result.error.is_none()));
    assert!(results.iter().map(|result| result.correlation_id.as_str()).eq(users));
}
