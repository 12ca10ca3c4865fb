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

use crate::harness::{Client, Ids, Method, PASSWORD, TestApp, methods, precise, refused};

fn policy(method: &Method) -> Access {
    let policies = Policies::load().expect("the table");
    policies.of(&method.path()).expect("a policy").clone()
}

/// All methods that are not public.
fn guarded() -> Vec<Method> {
    methods().into_iter().filter(|method| policy(method) != Access::Public).collect()
}

/// Asserts that each of these methods refuses the client.
async fn all_refused(client: &Client, methods: &[Method], code: Code, expected: &str) {
    assert!(!methods.is_empty());
    for method in methods {
        let reply = method.call(client, &method.sample(&Ids::random())).await;
        assert!(reply.is_err(), "{} answers", method.path());
        refused(reply, code, expected);
    }
}

#[tokio::test]
async fn without_a_token_only_public_methods_answer() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    all_refused(&anonymous, &guarded(), Code::Unauthenticated, "TOKEN_MISSING").await;
    for method in methods().iter().filter(|method| policy(method) == Access::Public) {
        let reply = method.call(&anonymous, &method.sample(&Ids::random())).await;
        assert_ne!(precise(&method.path(), &reply), "TOKEN_MISSING", "{}", method.path());
    }
}

#[tokio::test]
async fn no_method_accepts_an_invalid_token() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let forge = app.forge();
    let token = &acme.tokens.access_token;
    let (header, claims) = crate::harness::Forge::read(token);
    let other_key = jsonwebtoken::encode(&header, &claims, &forge.refresh).expect("a token");
    let (signed, _) = token.rsplit_once('.').expect("a signature");
    let other_tenant_claims = json!({ "org": uuid::Uuid::now_v7() });

    let ended = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    ended.auth().logout(LogoutRequest::default()).await.expect("signs out");

    for (what, token) in [
        ("expired", forge.expired(token)),
        ("signed by another key", other_key),
        ("not signed", format!("{signed}.")),
        ("of another kind", acme.tokens.refresh_token.clone()),
        ("of no tenant", forge.with_claims(token, &other_tenant_claims)),
        ("of a session that has ended", ended.tokens.access_token.clone()),
    ] {
        println!("{what}");
        let client = acme.with_token(&token);
        all_refused(&client, &guarded(), Code::Unauthenticated, "TOKEN_INVALID").await;
    }
}

/// D01: the tenant of a token limits every call.
#[tokio::test]
async fn no_method_works_in_another_tenant_than_the_tokens() {
    let app = TestApp::spawn().await;
    let (acme, other) = (app.tenant("acme").await, app.tenant("other").await);
    let (own_rows, other_rows) =
        (app.rows_of(&acme.tenant_id).await, app.rows_of(&other.tenant_id).await);
    let unknown = uuid::Uuid::now_v7().to_string();
    for (key, value) in [
        ("x-tenant-id", other.tenant_id.as_str()),
        ("x-tenant-id", "other"),
        ("x-organization-slug", "other"),
        ("x-organization-slug", other.tenant_id.as_str()),
        ("x-tenant-id", "platform"),
        // The answer does not reveal which tenants exist.
        ("x-tenant-id", unknown.as_str()),
        ("x-organization-slug", "nowhere"),
    ] {
        let client = acme.with(key, value);
        all_refused(&client, &guarded(), Code::PermissionDenied, "TENANT_MISMATCH").await;
    }
    assert_eq!(app.rows_of(&other.tenant_id).await, other_rows);
    assert_eq!(app.rows_of(&acme.tenant_id).await, own_rows);
}

#[tokio::test]
async fn a_user_without_a_role_can_use_no_method_that_requires_a_permission() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let member_without_permission = acme.member("nobody", &[]).await;
    let before = app.rows_of(&acme.tenant_id).await;
    let strict =
        |method: &Method| matches!(policy(method), Access::Permission { self_allowed: false, .. });
    let strict: Vec<_> = methods().into_iter().filter(strict).collect();
    all_refused(&member_without_permission, &strict, Code::PermissionDenied, "PERMISSION_MISSING")
        .await;
    assert_eq!(app.rows_of(&acme.tenant_id).await, before);
}

/// An object of another user gets the same answer as an unknown id.
#[tokio::test]
async fn methods_for_ones_own_objects_do_not_reach_those_of_others() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let member_without_permission = acme.member("nobody", &[]).await;
    let role = acme.create_role("theirs", 1.try_into().expect("a level"), &[]).await;
    let other_users_ids = Ids::of(&acme, &role);
    let before = app.rows_of(&acme.tenant_id).await;

    let mut seen = 0;
    for method in guarded() {
        let path = method.path();
        let strict = matches!(policy(&method), Access::Permission { self_allowed: false, .. });
        let shows_token = method.0.input().get_field_by_name("token").is_some();
        if strict || (method.id_fields().is_empty() && !shows_token) {
            continue;
        }
        let mut asked = method.sample(&other_users_ids);
        if shows_token {
            asked.set_field_by_name("token", Value::String(acme.tokens.access_token.clone()));
        }
        let answer = method.answer(&member_without_permission, &asked).await;
        assert_eq!(
            answer,
            method.answer(&member_without_permission, &method.sample(&Ids::random())).await,
            "{path}"
        );
        match answer.code {
            Code::PermissionDenied | Code::NotFound => {}
            // These two answer OK: `active: false`, and an error for each item.
            Code::Ok if shows_token => assert_eq!(answer.body.encoded_len(), 0, "{path}"),
            Code::Ok if path.ends_with("/BatchCheck") => {
                let text = format!("{:?}", answer.body);
                assert!(
                    text.contains(&format!("I32({})", Code::PermissionDenied as i32)),
                    "{text}"
                );
            }
            code => panic!("{path}: {code:?}"),
        }
        seen += 1;
    }
    assert!(seen > 10, "{seen}");
    assert_eq!(app.rows_of(&acme.tenant_id).await, before);
}

#[tokio::test]
async fn platform_methods_refuse_the_administrators_of_other_tenants() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let platform_only =
        |method: &Method| matches!(policy(method), Access::Permission { platform_only: true, .. });
    let methods: Vec<_> = methods().into_iter().filter(platform_only).collect();
    let before = app.row_counts().await;
    all_refused(&acme, &methods, Code::PermissionDenied, "PERMISSION_MISSING").await;
    for method in &methods {
        let reply = method.call(&acme, &method.sample(&Ids::of(&acme, ""))).await;
        refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    }
    assert_eq!(app.row_counts().await, before);
    // The same permission in another tenant does not allow the call.
    let named = acme.member("named", &["tenant:*"]).await;
    all_refused(&named, &methods, Code::PermissionDenied, "PERMISSION_MISSING").await;
}

#[tokio::test]
async fn the_permissions_of_the_policy_are_sufficient() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let root = app.platform_admin().await;
    for (number, method) in guarded().into_iter().enumerate() {
        let Access::Permission { permissions, platform_only, .. } = policy(&method) else {
            continue;
        };
        let permissions: Vec<_> = permissions.iter().map(String::as_str).collect();
        let admin = if platform_only { &root } else { &acme };
        let member = admin.member(&format!("m{number}"), &permissions).await;
        let reply = method.call(&member, &method.sample(&Ids::random())).await;
        assert_ne!(precise(&method.path(), &reply), "PERMISSION_MISSING", "{}", method.path());
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
fn a_method_without_a_policy_stops_the_start() {
    Policies::from_descriptors(&without_policy("")).expect("nothing is missing");
    for method in methods() {
        let path = method.path();
        let error = Policies::from_descriptors(&without_policy(&path)).expect_err(&path);
        assert!(format!("{error:#}").contains(&path), "{error:#}");
    }
}

/// The descriptors without the options of one method.
fn without_policy(path: &str) -> Vec<u8> {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("descriptors");
    let kind = pool.get_message_by_name("google.protobuf.FileDescriptorSet").expect("its type");
    // DynamicMessage keeps the options, which prost's own types drop.
    let mut set = DynamicMessage::decode(kind, DESCRIPTORS).expect("descriptors");
    for file in list(&mut set, "file") {
        let package = text(file, "package");
        for service in list(file, "service") {
            let service_name = text(service, "name");
            for method in list(service, "method") {
                if format!("/{package}.{service_name}/{}", text(method, "name")) == path {
                    method.clear_field_by_name("options");
                }
            }
        }
    }
    set.encode_to_vec()
}

fn list<'a>(of: &'a mut DynamicMessage, name: &str) -> Vec<&'a mut DynamicMessage> {
    let field = of.get_field_by_name_mut(name).expect("the field");
    field.as_list_mut().expect("a list").iter_mut().filter_map(Value::as_message_mut).collect()
}

fn text(of: &DynamicMessage, name: &str) -> String {
    of.get_field_by_name(name).expect("the field").as_str().expect("text").to_owned()
}
