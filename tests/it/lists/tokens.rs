//! Page tokens: they are bound to their caller, tenant and method, and cannot be forged or
//! altered.

use prost_reflect::{DynamicMessage, Value};
use tenantry::proto::v1::RoleLevel;
use tonic::Code;

use super::{lists, text, value};
use crate::harness::{Client, Ids, Method, PASSWORD, TestApp, refused};

/// A tenant with at least two objects in each list.
async fn two_of_each(app: &TestApp) -> (Client, Ids) {
    let acme = app.tenant("acme").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["invoice:read"]).await;
    let ada = acme.create_user_without_password("ada@acme.test").await;
    acme.assign(&ada, &role).await;
    acme.assign(&acme.user_id, &role).await;
    acme.login("acme", &acme.email, PASSWORD).await;
    let account = acme.create_service_account("one", &[]).await;
    acme.create_service_account("two", &[]).await;
    for _ in 0..2 {
        acme.create_api_key(&account).await;
    }
    let mut ids = Ids::of(&acme, &role);
    ids.0.insert("service_account_id", account);
    (acme, ids)
}

/// A request for the first page, with a page size of one.
fn first_page_request(method: &Method, ids: &Ids) -> DynamicMessage {
    let mut request = method.sample(ids);
    request.set_field_by_name("page_size", Value::I32(1));
    if method.0.name() == "ListRoleAssignments" {
        request.clear_field_by_name("user_id");
        request.clear_field_by_name("role_id");
    }
    request
}

/// The token of the next page.
async fn token(method: &Method, client: &Client, request: &DynamicMessage) -> String {
    let reply = method.call(client, request).await.expect("a page").into_inner();
    let reply = DynamicMessage::decode(method.0.output(), reply.as_slice()).expect("a reply");
    text(&reply, "next_page_token")
}

async fn assert_refused(method: &Method, client: &Client, request: &DynamicMessage, token: &str) {
    let mut next = request.clone();
    next.set_field_by_name("page_token", value(token));
    let reply = method.call(client, &next).await;
    refused(reply, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
}

/// N14: a page token works only for the request that returned the token.
#[tokio::test]
async fn a_page_token_is_bound_to_its_caller_tenant_and_method_and_cannot_be_altered() {
    let app = TestApp::spawn().await;
    let (acme, ids) = two_of_each(&app).await;
    app.tenant("other").await;
    let root = app.platform_admin().await;
    // Platform staff may call every method in any tenant.
    let staff = root.with("x-tenant-id", &acme.tenant_id);

    let mut tokens = Vec::new();
    for method in lists() {
        let request = first_page_request(&method, &ids);
        let token = token(&method, &staff, &request).await;
        assert!(!token.is_empty(), "{} has one page", method.path());
        tokens.push((method, request, token));
    }
    assert!(tokens.len() >= 9, "{}", tokens.len());

    for (method, request, token) in &tokens {
        for (other, _, other_token) in &tokens {
            if other.path() != method.path() {
                assert_refused(method, &staff, request, other_token).await;
            }
        }
        // First another caller in the same tenant, then the same caller in another tenant.
        let is_staff_only = method.0.name() == "ListTenants";
        let colleague = if is_staff_only { &root } else { &acme };
        assert_refused(method, colleague, request, token).await;
        let other_tenant_client = root.with("x-tenant-id", "other");
        assert_refused(method, &other_tenant_client, request, token).await;

        for index in (0..token.len()).step_by(5) {
            let mut altered = token.clone().into_bytes();
            altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("text");
            assert_refused(method, &staff, request, &altered).await;
        }
        for field in ["filter", "permission"] {
            if method.0.input().get_field_by_name(field).is_some() {
                let mut changed = request.clone();
                let other = if field == "filter" { " " } else { "invoice:pay" };
                changed.set_field_by_name(field, value(other));
                assert_refused(method, &staff, &changed, token).await;
            }
        }
        let mut next = request.clone();
        next.set_field_by_name("page_token", value(token));
        method.call(&staff, &next).await.expect("the next page");
    }
}

/// N14: all replicas use the same key for page tokens.
#[tokio::test]
async fn a_page_token_is_valid_on_every_replica() {
    let app = TestApp::spawn().await;
    let (acme, ids) = two_of_each(&app).await;
    let second_replica = TestApp::on(&app.database, |_| {}).await;
    let replica_client = acme.on(&second_replica.channel);
    for method in lists().iter().filter(|method| method.0.name() != "ListTenants") {
        let mut request = first_page_request(method, &ids);
        let token = token(method, &acme, &request).await;
        request.set_field_by_name("page_token", value(&token));
        method.call(&replica_client, &request).await.expect("the next page");
    }
}
