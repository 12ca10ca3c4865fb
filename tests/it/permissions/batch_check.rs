//! PermissionService.BatchCheck

use serde_json::json;
use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, BatchCheckResult, DecisionReason, RoleLevel,
};
use tonic::Code;

use crate::harness::{Client, TestApp, assert_refused, struct_of, unknown_id};

fn item(user_id: &str, permission: &str, correlation_id: &str) -> BatchCheckItem {
    BatchCheckItem {
        user_id: user_id.into(),
        permission: permission.into(),
        correlation_id: correlation_id.into(),
        scope: None,
    }
}

fn batch_request(items: Vec<BatchCheckItem>) -> BatchCheckRequest {
    BatchCheckRequest { items, ..BatchCheckRequest::default() }
}

async fn batch_check(client: &Client, items: Vec<BatchCheckItem>) -> Vec<BatchCheckResult> {
    let reply = client.permissions().batch_check(batch_request(items)).await.expect("decisions");
    let reply = reply.into_inner();
    assert!(!reply.decision_id.is_empty());
    reply.results
}

#[tokio::test]
async fn results_keep_the_order_and_correlation_ids_of_the_items() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await.user_id;
    let bob = acme.create_member("bob", &["doc:write"]).await.user_id;

    let items = [
        item(&ada, "doc:read", "one"),
        item(&bob, "doc:read", "two"),
        item(&bob, "doc:write", ""),
        item(&ada, "doc:write", "one"),
        item(&ada, "doc:read", "five"),
    ];
    let results = batch_check(&acme, items.to_vec()).await;
    let decisions: Vec<_> =
        results.iter().map(|r| (r.correlation_id.as_str(), r.allowed)).collect();
    assert_eq!(
        decisions,
        [("one", true), ("two", false), ("", true), ("one", false), ("five", true)]
    );
    assert!(results.iter().all(|r| r.error.is_none()));
}

#[tokio::test]
async fn each_item_has_its_own_scope() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_user("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    acme.assign_with_scope(&ada, &role, json!({ "project": "x" })).await;

    let item_with_scope =
        |scope| BatchCheckItem { scope: struct_of(scope), ..item(&ada, "doc:read", "") };
    let items = vec![
        item_with_scope(json!({ "project": "x" })),
        item_with_scope(json!({ "project": "y" })),
        item(&ada, "doc:read", ""),
    ];
    let reasons: Vec<_> =
        batch_check(&acme, items).await.iter().map(BatchCheckResult::reason).collect();
    let mismatch = DecisionReason::ScopeMismatch;
    assert_eq!(reasons, [DecisionReason::Granted, mismatch, mismatch]);
}

#[tokio::test]
async fn a_malformed_item_does_not_affect_other_items() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let mut nan_item = item("", "doc:read", "nan");
    let nan = prost_types::Value { kind: Some(prost_types::value::Kind::NumberValue(f64::NAN)) };
    let fields = std::iter::once(("n".to_owned(), nan)).collect();
    nan_item.scope = Some(prost_types::Struct { fields });

    let items = vec![
        item("", "doc:read", "first"),
        item("", "doc:*", "wildcard"),
        item("", "doc", "malformed"),
        item("", &format!("{}:read", "a".repeat(300)), "long"),
        item("x", "doc:read", "user"),
        nan_item,
        item("", "doc:read", "last"),
    ];
    // All items are malformed, except the first and the last.
    for (index, result) in batch_check(&acme, items).await.iter().enumerate() {
        let is_malformed = index != 0 && index != 6;
        assert_eq!(result.allowed, !is_malformed, "{result:?}");
        let code = result.error.as_ref().map(|error| error.code);
        assert_eq!(code, is_malformed.then_some(Code::InvalidArgument as i32), "{result:?}");
    }
}

#[tokio::test]
async fn without_the_permission_only_items_about_the_caller_are_decided() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    // This user does not have the permission `permission:check`.
    let ada = acme.create_member("ada", &["doc:read"]).await;

    let items = vec![
        item("", "doc:read", ""),
        item(&acme.user_id, "doc:read", ""),
        item(&ada.user_id, "doc:read", ""),
        item(&unknown_id(), "doc:read", ""),
    ];
    let results = batch_check(&ada, items).await;
    let permission_denied = Some(Code::PermissionDenied as i32);
    let codes: Vec<_> = results.iter().map(|r| r.error.as_ref().map(|e| e.code)).collect();
    assert_eq!(codes, [None, permission_denied, None, permission_denied]);
    assert!(results[0].allowed && results[2].allowed && !results[1].allowed);
}

#[tokio::test]
async fn a_batch_has_at_most_a_thousand_items() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await.user_id;
    let items = |count: usize| -> Vec<_> {
        let action = |index| if index % 3 == 0 { "doc:read" } else { "doc:write" };
        (0..count).map(|index| item(&ada, action(index), &index.to_string())).collect()
    };

    let results = batch_check(&acme, items(1000)).await;
    assert_eq!(results.len(), 1000);
    for (index, result) in results.iter().enumerate() {
        assert_eq!(result.correlation_id, index.to_string());
        assert_eq!(result.allowed, index % 3 == 0);
    }
    for count in [0, 1001] {
        let result = acme.permissions().batch_check(batch_request(items(count))).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
}

/// D09: `BatchCheck` gives the same result for another tenant's user and for an unknown user.
#[tokio::test]
async fn another_tenants_users_get_the_same_result_as_unknown_users() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let other_tenants_user = a.create_member("ada", &["doc:read"]).await.user_id;
    let own_user = b.create_member("bob", &["doc:read"]).await.user_id;

    let ids = [&other_tenants_user, &own_user, &unknown_id(), &a.user_id];
    let items = ids.map(|id| item(id, "doc:read", "")).to_vec();
    let results = batch_check(&b, items).await;
    assert!(results[1].allowed);
    assert!(!results[2].allowed);
    assert_eq!(results[0], results[2]);
    assert_eq!(results[3], results[2]);
}
