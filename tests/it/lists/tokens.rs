//! Page tokens are bound to their caller, tenant and method, and cannot be forged or altered.

use prost_reflect::{DynamicMessage, Value};
use tenantry::proto::v1::RoleLevel;
use tonic::Code;

use super::{list_methods, text_field, text_value};
use crate::harness::{Client, Ids, Method, PASSWORD, TestApp, assert_refused};

/// A tenant with at least two objects in each list.
async fn tenant_with_two_of_each(app: &TestApp) -> (Client, Ids) {
    let acme = app.create_tenant("acme").await;
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
    let mut ids = Ids::of_client(&acme, &role);
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
async fn next_page_token(method: &Method, client: &Client, request: &DynamicMessage) -> String {
    let reply = method.call(client, request).await.expect("a page").into_inner();
    let reply = DynamicMessage::decode(method.0.output(), reply.as_slice()).expect("a reply");
    text_field(&reply, "next_page_token")
}

async fn assert_token_refused(
    method: &Method,
    client: &Client,
    request: &DynamicMessage,
    token: &str,
) {
    let mut next_request = request.clone();
    next_request.set_field_by_name("page_token", text_value(token));
    let reply = method.call(client, &next_request).await;
    assert_refused(reply, Code::InvalidArgument, "INVALID_PAGE_TOKEN");
}

/// N14: a page token works only for the request that returned the token.
#[tokio::test]
async fn a_page_token_is_valid_only_for_its_request() {
    let app = TestApp::spawn().await;
    let (acme, ids) = tenant_with_two_of_each(&app).await;
    app.create_tenant("other").await;
    let platform_admin = app.platform_admin().await;
    // The platform's administrator may call every method in any tenant.
    let platform_admin_in_acme = platform_admin.with_metadata("x-tenant-id", &acme.tenant_id);

    let mut tokens = Vec::new();
    for method in list_methods() {
        let request = first_page_request(&method, &ids);
        let token = next_page_token(&method, &platform_admin_in_acme, &request).await;
        assert!(!token.is_empty(), "{} has one page", method.path());
        tokens.push((method, request, token));
    }
    assert!(tokens.len() >= 9, "{}", tokens.len());

    for (method, request, token) in &tokens {
        for (other, _, other_token) in &tokens {
            if other.path() != method.path() {
                assert_token_refused(method, &platform_admin_in_acme, request, other_token).await;
            }
        }
        // First another caller in the same tenant, then the same caller in another tenant. Only the
        // platform's administrator may call ListTenants: for this method, both are the same caller
        // in another tenant.
        let is_platform_only = method.0.name() == "ListTenants";
        let other_caller = if is_platform_only { &platform_admin } else { &acme };
        assert_token_refused(method, other_caller, request, token).await;
        let other_tenant_client = platform_admin.with_metadata("x-tenant-id", "other");
        assert_token_refused(method, &other_tenant_client, request, token).await;

        for index in (0..token.len()).step_by(5) {
            let mut altered_token = token.clone().into_bytes();
            altered_token[index] = if altered_token[index] == b'A' { b'B' } else { b'A' };
            let altered_token = String::from_utf8(altered_token).expect("text");
            assert_token_refused(method, &platform_admin_in_acme, request, &altered_token).await;
        }
        for field in ["filter", "permission"] {
            if method.0.input().get_field_by_name(field).is_some() {
                let mut changed_request = request.clone();
                let other_value = if field == "filter" { " " } else { "invoice:pay" };
                changed_request.set_field_by_name(field, text_value(other_value));
                assert_token_refused(method, &platform_admin_in_acme, &changed_request, token)
                    .await;
            }
        }
        let mut next_request = request.clone();
        next_request.set_field_by_name("page_token", text_value(token));
        method.call(&platform_admin_in_acme, &next_request).await.expect("the next page");
    }
}

/// N14: all replicas use the same key for page tokens.
#[tokio::test]
async fn a_page_token_is_valid_on_every_replica() {
    let app = TestApp::spawn().await;
    let (acme, ids) = tenant_with_two_of_each(&app).await;
    let second_replica = TestApp::on_database(&app.database, |_| {}).await;
    let replica_client = acme.on_server(&second_replica.channel);
    for method in list_methods().iter().filter(|method| method.0.name() != "ListTenants") {
        let mut request = first_page_request(method, &ids);
        let token = next_page_token(method, &acme, &request).await;
        request.set_field_by_name("page_token", text_value(&token));
        method.call(&replica_client, &request).await.expect("the next page");
    }
}
