//! The gate before every method, tested from the descriptors, so that the tests also cover new
//! methods. A weaker policy fails a test.

use std::process::Command;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, Value};
use serde_json::json;
use tenantry::{
    gate::{Access, Policies},
    proto::{DESCRIPTORS, v1::LogoutRequest},
};
use tonic::Code;

use crate::harness::{
    Client, Ids, Method, PASSWORD, TestApp, assert_refused, assert_success_or_documented_error,
    methods,
};

fn policy(method: &Method) -> Access {
    let policies = Policies::load().expect("the policies load");
    policies.access_of(&method.path()).expect("a policy").clone()
}

/// All methods that are not public.
fn non_public_methods() -> Vec<Method> {
    methods().into_iter().filter(|method| policy(method) != Access::Public).collect()
}

/// Asserts that each of these methods refuses the client.
async fn assert_all_refused(client: &Client, methods: &[Method], code: Code, reason: &str) {
    assert!(!methods.is_empty());
    for method in methods {
        let reply = method.call(client, &method.sample(&Ids::random())).await;
        assert!(reply.is_err(), "{} accepts the call", method.path());
        assert_refused(reply, code, reason);
    }
}

#[tokio::test]
async fn only_public_methods_accept_a_call_without_a_token() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    assert_all_refused(&anonymous, &non_public_methods(), Code::Unauthenticated, "TOKEN_MISSING")
        .await;
    for method in methods().iter().filter(|method| policy(method) == Access::Public) {
        let reply = method.call(&anonymous, &method.sample(&Ids::random())).await;
        assert_ne!(
            assert_success_or_documented_error(&method.path(), &reply),
            "TOKEN_MISSING",
            "{}",
            method.path()
        );
    }
}

#[tokio::test]
async fn no_method_accepts_an_invalid_token() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let token = &acme.tokens.access_token;
    let (header, claims) = crate::harness::Forge::read(token);
    let signed_by_other_key =
        jsonwebtoken::encode(&header, &claims, &forge.refresh).expect("a token");
    let (signed_part, _) = token.rsplit_once('.').expect("a signature");
    let other_tenant_claims = json!({ "org": uuid::Uuid::now_v7() });

    let signed_out_client = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    signed_out_client.auth().logout(LogoutRequest::default()).await.expect("signs out");

    for (case, token) in [
        ("expired", forge.expired(token)),
        ("signed by another key", signed_by_other_key),
        ("not signed", format!("{signed_part}.")),
        ("a refresh token", acme.tokens.refresh_token.clone()),
        ("of an unknown tenant", forge.with_claims(token, &other_tenant_claims)),
        ("of a session that has ended", signed_out_client.tokens.access_token.clone()),
    ] {
        println!("{case}");
        let client = acme.with_token(&token);
        assert_all_refused(&client, &non_public_methods(), Code::Unauthenticated, "TOKEN_INVALID")
            .await;
    }
}

/// D01: the tenant of a token limits every call.
#[tokio::test]
async fn no_method_accepts_metadata_with_another_tenant() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    let (own_rows, other_rows) =
        (app.rows_of(&acme.tenant_id).await, app.rows_of(&other.tenant_id).await);
    let unknown = uuid::Uuid::now_v7().to_string();
    for (key, value) in [
        ("x-tenant-id", other.tenant_id.as_str()),
        ("x-tenant-id", "other"),
        ("x-organization-slug", "other"),
        ("x-organization-slug", other.tenant_id.as_str()),
        ("x-tenant-id", "platform"),
        // These tenants do not exist. The response must be the same.
        ("x-tenant-id", unknown.as_str()),
        ("x-organization-slug", "nowhere"),
    ] {
        let client = acme.with_metadata(key, value);
        assert_all_refused(
            &client,
            &non_public_methods(),
            Code::PermissionDenied,
            "TENANT_MISMATCH",
        )
        .await;
    }
    assert_eq!(app.rows_of(&other.tenant_id).await, other_rows);
    assert_eq!(app.rows_of(&acme.tenant_id).await, own_rows);
}

#[tokio::test]
async fn a_user_without_a_role_can_use_no_method_that_requires_a_permission() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let member_without_permission = acme.create_member("nobody", &[]).await;
    let rows_before = app.rows_of(&acme.tenant_id).await;
    let needs_permission =
        |method: &Method| matches!(policy(method), Access::Permission { self_allowed: false, .. });
    let methods: Vec<_> = methods().into_iter().filter(needs_permission).collect();
    assert_all_refused(
        &member_without_permission,
        &methods,
        Code::PermissionDenied,
        "PERMISSION_MISSING",
    )
    .await;
    assert_eq!(app.rows_of(&acme.tenant_id).await, rows_before);
}

/// A call with the id of another user's object gets the same response as a call with an unknown
/// id.
#[tokio::test]
async fn methods_for_ones_own_objects_do_not_reach_objects_of_others() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let member_without_permission = acme.create_member("nobody", &[]).await;
    let role = acme.create_role("theirs", 1.try_into().expect("a level"), &[]).await;
    let other_users_ids = Ids::of_client(&acme, &role);
    let rows_before = app.rows_of(&acme.tenant_id).await;

    let mut checked_methods = 0;
    for method in non_public_methods() {
        let path = method.path();
        let needs_permission =
            matches!(policy(&method), Access::Permission { self_allowed: false, .. });
        let has_token_field = method.0.input().get_field_by_name("token").is_some();
        if needs_permission || (method.id_fields().is_empty() && !has_token_field) {
            continue;
        }
        let mut request = method.sample(&other_users_ids);
        if has_token_field {
            request.set_field_by_name("token", Value::String(acme.tokens.access_token.clone()));
        }
        let response = method.call_comparable(&member_without_permission, &request).await;
        assert_eq!(
            response,
            method
                .call_comparable(&member_without_permission, &method.sample(&Ids::random()))
                .await,
            "{path}"
        );
        match response.code {
            Code::PermissionDenied | Code::NotFound => {}
            // These two methods return OK: `IntrospectToken` with `active: false`, and
            // `BatchCheck` with an error for each item.
            Code::Ok if has_token_field => assert_eq!(response.body.encoded_len(), 0, "{path}"),
            Code::Ok if path.ends_with("/BatchCheck") => {
                let text = format!("{:?}", response.body);
                assert!(
                    text.contains(&format!("I32({})", Code::PermissionDenied as i32)),
                    "{text}"
                );
            }
            code => panic!("{path}: {code:?}"),
        }
        checked_methods += 1;
    }
    assert!(checked_methods > 10, "{checked_methods} methods");
    assert_eq!(app.rows_of(&acme.tenant_id).await, rows_before);
}

#[tokio::test]
async fn platform_methods_refuse_the_administrators_of_other_tenants() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_only =
        |method: &Method| matches!(policy(method), Access::Permission { platform_only: true, .. });
    let methods: Vec<_> = methods().into_iter().filter(platform_only).collect();
    let rows_before = app.row_counts().await;
    assert_all_refused(&acme, &methods, Code::PermissionDenied, "PERMISSION_MISSING").await;
    for method in &methods {
        let reply = method.call(&acme, &method.sample(&Ids::of_client(&acme, ""))).await;
        assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    }
    assert_eq!(app.row_counts().await, rows_before);
    // The permission allows the call only when it is held in the platform tenant.
    let member = acme.create_member("tenants", &["tenant:*"]).await;
    assert_all_refused(&member, &methods, Code::PermissionDenied, "PERMISSION_MISSING").await;
}

#[tokio::test]
async fn the_permissions_of_the_policy_are_sufficient() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    for (number, method) in non_public_methods().into_iter().enumerate() {
        let Access::Permission { permissions, platform_only, .. } = policy(&method) else {
            continue;
        };
        let permissions: Vec<_> = permissions.iter().map(String::as_str).collect();
        let admin = if platform_only { &platform_admin } else { &acme };
        let member = admin.create_member(&format!("m{number}"), &permissions).await;
        let reply = method.call(&member, &method.sample(&Ids::random())).await;
        assert_ne!(
            assert_success_or_documented_error(&method.path(), &reply),
            "PERMISSION_MISSING",
            "{}",
            method.path()
        );
    }
}

#[test]
fn the_policies_are_those_in_policies_txt() {
    let output = Command::new(env!("CARGO_BIN_EXE_tenantry")).arg("policies").output();
    let output = output.expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert_eq!(
        printed,
        include_str!("policies.txt"),
        "tests/it/policies.txt has the agreed policies"
    );
    // The table also has the method of Envoy, whose proto is separate.
    assert_eq!(printed.lines().count(), methods().len() + 1);
}

#[test]
fn a_method_without_a_policy_prevents_the_start() {
    Policies::from_descriptors(&without_policy("")).expect("no policy is missing");
    for method in methods() {
        let path = method.path();
        let error = Policies::from_descriptors(&without_policy(&path)).expect_err(&path);
        assert!(format!("{error:#}").contains(&path), "{error:#}");
    }
}

/// The descriptors without the options of the method with this path. An empty path removes nothing.
fn without_policy(path: &str) -> Vec<u8> {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("descriptors");
    let descriptor =
        pool.get_message_by_name("google.protobuf.FileDescriptorSet").expect("the message type");
    // DynamicMessage keeps the options, which prost's own types drop.
    let mut set = DynamicMessage::decode(descriptor, DESCRIPTORS).expect("descriptors");
    for file in messages_of(&mut set, "file") {
        let package = text_field(file, "package");
        for service in messages_of(file, "service") {
            let service_name = text_field(service, "name");
            for method in messages_of(service, "method") {
                if format!("/{package}.{service_name}/{}", text_field(method, "name")) == path {
                    method.clear_field_by_name("options");
                }
            }
        }
    }
    set.encode_to_vec()
}

/// The messages in a list field.
fn messages_of<'a>(message: &'a mut DynamicMessage, name: &str) -> Vec<&'a mut DynamicMessage> {
    let field = message.get_field_by_name_mut(name).expect("the field");
    field.as_list_mut().expect("a list").iter_mut().filter_map(Value::as_message_mut).collect()
}

fn text_field(message: &DynamicMessage, name: &str) -> String {
    message.get_field_by_name(name).expect("the field").as_str().expect("text").to_owned()
}
