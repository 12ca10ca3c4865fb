//! Rules for passwords, and the storage of passwords.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use tenantry::{
    config::Values,
    proto::v1::{LoginRequest, RegisterRequest},
};
use tonic::Code;

use super::register::{register, register_successfully, tenant_request};
use crate::harness::{PASSWORD, TestApp, assert_refused};

/// A request that registers a new tenant with this password and slug.
fn register_request(password: &str, slug: &str) -> RegisterRequest {
    RegisterRequest {
        email: "Ada.Lovelace@new.test".into(),
        password: password.into(),
        ..tenant_request("Analytical Engines", slug)
    }
}

async fn can_sign_in(app: &TestApp, slug: &str, password: &str) -> bool {
    let request = LoginRequest {
        email: "ada.lovelace@new.test".into(),
        password: password.into(),
        organization_slug: slug.into(),
        ..LoginRequest::default()
    };
    match app.anonymous().auth().login(request).await {
        Ok(_) => true,
        result => {
            assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
            false
        }
    }
}

/// B01: a password with fewer than 8 characters is refused.
/// B02: a password with more than 1024 bytes is refused.
/// B04: a common password is refused, and so is a name of the user, the tenant or the service.
#[tokio::test]
async fn short_long_and_common_passwords_are_refused() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();

    // Passwords have at least 8 characters and at most 1024 bytes.
    for password in ["", "1234567", "🦀🦀🦀🦀🦀🦀🦀", &"x".repeat(1025), &"é".repeat(513)]
    {
        let result = register(&anonymous, register_request(password, "engines-1")).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    for password in [
        "ada.lovelace@new.test",
        "ADA.LOVELACE@NEW.TEST",
        "ada.lovelace",
        "ada.lovelaceada.lovelace",
        "analytical engines",
        "Analytical EnginesAnalytical Engines",
        "engines-1engines-1engines-1",
        "TenantryTenantry",
        "password",
        "Qwertyuiop",
        "passwordpassword",
    ] {
        let result = register(&anonymous, register_request(password, "engines-1")).await;
        assert_refused(result, Code::InvalidArgument, "PASSWORD_TOO_COMMON");
    }
    assert_eq!(app.row_counts().await["users"], 0);
}

/// B04: the comparison ignores case and Unicode width.
#[tokio::test]
async fn a_password_that_equals_the_name_of_the_tenant_is_refused_in_every_spelling() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();

    for (name, password) in [
        ("ANALYTICAL", "analytical"),
        ("Ａｎａｌｙｔｉｃａｌ", "analytical"),
        ("Analytical", "ａｎａｌｙｔｉｃａｌ"),
    ] {
        let request =
            RegisterRequest { password: password.into(), ..tenant_request(name, "some-slug") };
        assert_refused(
            register(&anonymous, request).await,
            Code::InvalidArgument,
            "PASSWORD_TOO_COMMON",
        );
    }
}

/// B01: 8 characters are enough, whatever the characters are.
/// B02: passwords of 64 characters and of 1024 bytes are accepted.
#[tokio::test]
async fn passwords_of_allowed_length_sign_in() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let password_of_1024_bytes = "x".repeat(1024);
    let password_of_64_characters = "correct horse battery staple ".repeat(3)[..64].to_owned();

    for (number, password) in [
        "12 45 78",
        "🦀🦀🦀🦀🦀🦀🦀🐪",
        " leading and trailing ",
        &password_of_64_characters,
        &password_of_1024_bytes,
    ]
    .into_iter()
    .enumerate()
    {
        let slug = format!("good-{number}");
        register_successfully(&anonymous, register_request(password, &slug)).await;
        assert!(can_sign_in(&app, &slug, password).await, "{password}");
        let mut without_last_character = password.to_owned();
        without_last_character.pop();
        assert!(!can_sign_in(&app, &slug, &without_last_character).await, "{password}");
    }
}

/// B03: a long password is not truncated.
#[tokio::test]
async fn passwords_that_differ_in_any_byte_are_different() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let long = "0123456789".repeat(20);
    register_successfully(&anonymous, register_request(&long, "long")).await;

    assert!(can_sign_in(&app, "long", &long).await);
    assert!(!can_sign_in(&app, "long", &long[..199]).await);
    // Bcrypt, for example, ignores all bytes after the 72nd.
    assert!(!can_sign_in(&app, "long", &format!("{}{}", &long[..72], "x".repeat(128))).await);
    assert!(!can_sign_in(&app, "long", &format!("{long}0")).await);
}

/// B14: passwords are normalized before they are hashed.
#[tokio::test]
async fn unicode_variants_of_the_same_characters_are_the_same_password() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();

    register_successfully(&anonymous, register_request("caf\u{e9} ole 12", "forms")).await;
    for variant in ["cafe\u{301} ole 12", "ｃａｆé ole １２", "caf\u{e9} ole 12"] {
        assert!(can_sign_in(&app, "forms", variant).await, "{variant}");
    }
    for other in ["CAFÉ OLE 12", "cafe ole 12", "caf\u{e9} ole 12 ", "caf\u{e9}\0 ole 12"] {
        assert!(!can_sign_in(&app, "forms", other).await, "{other}");
    }
}

/// B14: normalization removes no character.
#[tokio::test]
async fn passwords_that_differ_in_invisible_characters_are_different() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let passwords = ["pass\0word", "pass\u{feff}word", "pass\u{200b}word", "pass-word"];

    for (number, password) in passwords.iter().enumerate() {
        register_successfully(&anonymous, register_request(password, &format!("form-{number}")))
            .await;
    }
    for (number, _) in passwords.iter().enumerate() {
        for (other_number, password) in passwords.iter().enumerate() {
            let matches = can_sign_in(&app, &format!("form-{number}"), password).await;
            assert_eq!(matches, number == other_number, "{number} {other_number}");
        }
    }
}

/// B05: every stored hash is argon2id with its own salt.
#[tokio::test]
async fn equal_passwords_are_stored_as_argon2id_with_different_salts() {
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    for number in 0..5 {
        acme.create_user(&format!("u{number}@acme.test")).await;
    }

    let stored_hashes: Vec<String> = sqlx::query_scalar("select password_hash from credentials")
        .fetch_all(&mut app.owner_connection().await)
        .await
        .expect("hashes");
    let mut salts: Vec<_> = stored_hashes
        .iter()
        .map(|hash| {
            let salt_and_hash = hash.strip_prefix("$argon2id$v=19$m=19456,t=2,p=1$").expect(hash);
            let (salt, hash) = salt_and_hash.split_once('$').expect("a salt and a hash");
            assert_eq!((salt.len(), hash.len()), (22, 43), "16 and 32 bytes as base64");
            salt
        })
        .collect();
    salts.sort_unstable();
    salts.dedup();
    // The administrator and five users.
    assert_eq!((stored_hashes.len(), salts.len()), (6, 6));
}

/// R07: a sign-in with the right password hashes the password again with the new pepper.
#[tokio::test]
async fn a_new_pepper_is_applied_when_a_user_signs_in() {
    let dir = tempfile::tempdir().expect("a folder");
    // A line of a pepper file: the id of the pepper, and the pepper as base64.
    let line = |id: &str| format!("{id} {}", STANDARD.encode(id.repeat(40)));
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    std::fs::write(&a, line("a")).expect("written");
    std::fs::write(&b, format!("{}\n{}", line("b"), line("a"))).expect("written");
    let set_pepper = |path: &Path| {
        let path = path.display().to_string();
        move |values: &mut Values| values.set("PASSWORD_PEPPER_PATH", path)
    };
    let without_pepper = TestApp::with_production_hash_cost(|_| {}).await;
    without_pepper.create_tenant("acme").await;
    let stored_parameters = async || {
        let query = sqlx::query_scalar("select password_hash from credentials");
        let hash: String =
            query.fetch_one(&mut without_pepper.owner_connection().await).await.expect("a hash");
        hash.split('$').nth(3).expect("parameters").to_owned()
    };
    let sign_in = async |app: &TestApp| {
        let request = LoginRequest {
            email: "admin@acme.test".into(),
            password: PASSWORD.into(),
            organization_slug: "acme".into(),
            ..LoginRequest::default()
        };
        app.anonymous().auth().login(request).await
    };

    assert_eq!(stored_parameters().await, "m=19456,t=2,p=1");
    // `keyid` is the id of the pepper as base64: `YQ` is `a`, and `Yg` is `b`.
    for (path, keyid) in [(&a, "YQ"), (&b, "Yg")] {
        let app =
            TestApp::with_production_hash_cost_on(&without_pepper.database, set_pepper(path)).await;
        sign_in(&app).await.expect("signs in");
        assert_eq!(stored_parameters().await, format!("m=19456,t=2,p=1,keyid={keyid}"));
        sign_in(&app).await.expect("signs in");
    }
    // Servers that do not have the pepper `b` cannot check the password.
    let with_pepper_a =
        TestApp::with_production_hash_cost_on(&without_pepper.database, set_pepper(&a)).await;
    for server in [&without_pepper, &with_pepper_a] {
        assert_refused(sign_in(server).await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn the_server_may_require_longer_passwords() {
    let app = TestApp::with_settings(|values| values.set("PASSWORD_MIN_LENGTH", "15")).await;
    let anonymous = app.anonymous();

    let short_password_reply =
        register(&anonymous, register_request("fourteen chars", "acme")).await;
    assert_refused(short_password_reply, Code::InvalidArgument, "INVALID_FIELDS");
    register_successfully(&anonymous, register_request("fifteen chars !", "acme")).await;
    assert!(can_sign_in(&app, "acme", "fifteen chars !").await);
    assert!(!can_sign_in(&app, "acme", PASSWORD).await);
}
