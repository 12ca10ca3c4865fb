//! Every claim must be present and have the right type.

use serde_json::{Value, json};

use super::{assert_token_accepted, assert_token_refused};
use crate::harness::{Forge, TestApp};

/// A07: no required claim has a default.
#[tokio::test]
async fn each_required_claim_must_be_present() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let token = &acme.tokens.access_token;
    let (_, claims) = Forge::read(token);
    let names: Vec<_> = claims.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "nbf", "org", "roles", "sid", "sub"]);

    for name in names.iter().filter(|name| *name != "roles") {
        let token_without_claim = forge.with_claims(token, &json!({ name: null }));
        assert_token_refused(&acme, &format!("without {name}"), &token_without_claim).await;
    }
    // The claim `roles` is only informative.
    let token_without_claim = forge.with_claims(token, &json!({ "roles": null }));
    assert_token_accepted(&acme, "without roles", &token_without_claim).await;
}

/// A11: a claim of a wrong type is treated as missing.
#[tokio::test]
async fn claims_of_a_wrong_type_count_as_missing() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let (header, claims) = Forge::read(&acme.tokens.access_token);
    let header = serde_json::to_string(&header).expect("JSON");
    let invalid_times = [
        r#""9999999999""#,
        "1e400",
        "-1e400",
        "1e20",
        "-1",
        "null",
        "[9999999999]",
        "{}",
        "true",
        "253402300800.9",
        "9999999999.0",
        "99999999999999999999999999",
        "NaN",
        "Infinity",
        "",
        r#""99999999999""#,
        "0x7fffffff",
        "9223372036854775808",
    ];
    for value in invalid_times {
        let token = forge.sign_raw(&header, &with_raw(&claims, "exp", value));
        assert_token_refused(&acme, &format!("exp {value}"), &token).await;
    }
    // A time before the present, such as -1, is a valid `nbf`.
    let invalid_starts = invalid_times.iter().filter(|value| **value != "-1");
    for value in invalid_starts {
        let token = forge.sign_raw(&header, &with_raw(&claims, "nbf", value));
        assert_token_refused(&acme, &format!("nbf {value}"), &token).await;
    }
    for name in ["sub", "org", "sid"] {
        for value in ["null", "1", "[]", "{}", r#""""#, r#""x""#, r#"["x"]"#, "true"] {
            let token = forge.sign_raw(&header, &with_raw(&claims, name, value));
            assert_token_refused(&acme, &format!("{name} {value}"), &token).await;
        }
    }
    for (name, value) in [
        ("jti", "1"),
        ("iat", r#""1""#),
        ("iat", "null"),
        ("roles", r#""org_admin""#),
        ("roles", "{}"),
    ] {
        let token = forge.sign_raw(&header, &with_raw(&claims, name, value));
        assert_token_refused(&acme, &format!("{name} {value}"), &token).await;
    }
}

#[tokio::test]
async fn malformed_claims_and_headers_are_refused() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let forge = app.forge();
    let (header, claims) = Forge::read(&acme.tokens.access_token);
    let header = serde_json::to_string(&header).expect("JSON");
    // The claim `org` is there twice.
    let two_orgs = {
        let text = claims.to_string();
        format!(r#"{{"org":"{}",{}"#, uuid::Uuid::now_v7(), &text[1..])
    };
    let deep_json = format!("{}{}", "[".repeat(2000), "]".repeat(2000));
    for text in ["", "null", "[]", "1", "{}", "{", "\u{0}", &two_orgs, &deep_json] {
        assert_token_refused(&acme, &format!("claims {text:.40}"), &forge.sign_raw(&header, text))
            .await;
    }
    for text in ["", "null", "[]", "{}", "{", &deep_json] {
        let token = forge.sign_raw(text, &claims.to_string());
        assert_token_refused(&acme, &format!("header {text:.40}"), &token).await;
    }
}

#[tokio::test]
async fn a_token_with_ids_that_do_not_belong_together_is_refused() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let other = a.create_member("other", &[]).await;
    let forge = app.forge();
    let nil = uuid::Uuid::nil();
    for changes in [
        json!({ "org": b.tenant_id }),
        json!({ "sub": b.user_id }),
        json!({ "sub": other.user_id }),
        json!({ "sid": b.tokens.session_id }),
        json!({ "sid": other.tokens.session_id }),
        json!({ "org": b.tenant_id, "sub": b.user_id }),
        json!({ "org": b.tenant_id, "sid": b.tokens.session_id }),
        json!({ "org": nil }),
        json!({ "sub": nil }),
        json!({ "sid": nil }),
    ] {
        let token = forge.with_claims(&a.tokens.access_token, &changes);
        assert_token_refused(&a, &changes.to_string(), &token).await;
    }
}

/// The claims as JSON, where the value of one claim is inserted as raw text.
fn with_raw(claims: &Value, name: &str, value: &str) -> String {
    let mut claims = claims.clone();
    claims[name] = json!("@here@");
    claims.to_string().replace(r#""@here@""#, value)
}
