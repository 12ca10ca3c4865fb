//! Rules for passwords, and the storage of passwords.

use std::path::Path;

use base64::{Engine, engine::general_purpose::STANDARD};
use tenantry::{
    config::Values,
    proto::v1::{LoginRequest, RegisterRequest},
};
use tonic::Code;

use super::register::{organisation, register, registered};
use crate::harness::{PASSWORD, TestApp, refused};

fn organisation_with(password: &str, slug: &str) -> RegisterRequest {
    RegisterRequest {
        email: "Ada.Lovelace@new.test".into(),
        password: password.into(),
        ..organisation("Analytical Engines", slug)
    }
}

async fn signs_in(app: &TestApp, slug: &str, password: &str) -> bool {
    let request = LoginRequest {
        email: "ada.lovelace@new.test".into(),
        password: password.into(),
        organization_slug: slug.into(),
        ..LoginRequest::default()
    };
    match app.anonymous().auth().login(request).await {
        Ok(_) => true,
        result => {
            refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
            false
        }
    }
}

/// B01, B02, B04: registration refuses weak passwords and creates no user.
#[tokio::test]
async fn short_long_and_common_passwords_are_refused() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();

    for password in ["", "1234567", "🦀🦀🦀🦀🦀🦀🦀", &"x".repeat(1025), &"é".repeat(513)]
    {
        let result = register(&anonymous, organisation_with(password, "engines-1")).await;
        refused(result, Code::InvalidArgument, "INVALID_FIELDS");
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
        let result = register(&anonymous, organisation_with(password, "engines-1")).await;
        refused(result, Code::InvalidArgument, "PASSWORD_TOO_COMMON");
    }
    assert_eq!(app.row_counts().await["users"], 0);
}

/// B04: the comparison ignores case and Unicode width.
#[tokio::test]
async fn a_password_equal_to_the_organisations_name_is_refused_in_every_spelling() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();

    for (name, password) in [
        ("ANALYTICAL", "analytical"),
        ("Ａｎａｌｙｔｉｃａｌ", "analytical"),
        ("Analytical", "ａｎａｌｙｔｉｃａｌ"),
    ] {
        let request =
            RegisterRequest { password: password.into(), ..organisation(name, "some-slug") };
        refused(register(&anonymous, request).await, Code::InvalidArgument, "PASSWORD_TOO_COMMON");
    }
}

/// B01, B02: passwords at the limits of the length are accepted.
#[tokio::test]
async fn passwords_of_allowed_length_sign_in() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let longest = "x".repeat(1024);
    let sixty_four = "correct horse battery staple ".repeat(3)[..64].to_owned();

    for (number, accepted) in
        ["12 45 78", "🦀🦀🦀🦀🦀🦀🦀🐪", " leading and trailing ", &sixty_four, &longest]
            .into_iter()
            .enumerate()
    {
        let slug = format!("good-{number}");
        registered(&anonymous, organisation_with(accepted, &slug)).await;
        assert!(signs_in(&app, &slug, accepted).await, "{accepted}");
        let mut shorter = accepted.to_owned();
        shorter.pop();
        assert!(!signs_in(&app, &slug, &shorter).await, "{accepted}");
    }
}

/// B03: a long password is not truncated.
#[tokio::test]
async fn passwords_that_differ_in_any_byte_are_different() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let long = "0123456789".repeat(20);
    registered(&anonymous, organisation_with(&long, "long")).await;

    assert!(signs_in(&app, "long", &long).await);
    assert!(!signs_in(&app, "long", &long[..199]).await);
    assert!(!signs_in(&app, "long", &format!("{}{}", &long[..72], "x".repeat(128))).await);
    assert!(!signs_in(&app, "long", &format!("{long}0")).await);
}

/// B14: passwords are normalized before the hash.
#[tokio::test]
async fn unicode_forms_of_the_same_characters_are_the_same_password() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();

    registered(&anonymous, organisation_with("caf\u{e9} ole 12", "forms")).await;
    for same in ["cafe\u{301} ole 12", "ｃａｆé ole １２", "caf\u{e9} ole 12"] {
        assert!(signs_in(&app, "forms", same).await, "{same}");
    }
    for other in ["CAFÉ OLE 12", "cafe ole 12", "caf\u{e9} ole 12 ", "caf\u{e9}\0 ole 12"] {
        assert!(!signs_in(&app, "forms", other).await, "{other}");
    }
}

/// B14: normalization removes no character.
#[tokio::test]
async fn passwords_that_differ_in_invisible_characters_are_different() {
    let app = TestApp::spawn().await;
    let anonymous = app.anonymous();
    let forms = ["pass\0word", "pass\u{feff}word", "pass\u{200b}word", "pass-word"];

    for (number, password) in forms.iter().enumerate() {
        registered(&anonymous, organisation_with(password, &format!("form-{number}"))).await;
    }
    for (number, _) in forms.iter().enumerate() {
        for (other, password) in forms.iter().enumerate() {
            let same = signs_in(&app, &format!("form-{number}"), password).await;
            assert_eq!(same, number == other, "{number} {other}");
        }
    }
}

/// B05: every stored hash is argon2id with its own salt.
#[tokio::test]
async fn equal_passwords_are_stored_as_argon2id_with_different_salts() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    for number in 0..5 {
        acme.create_user(&format!("u{number}@acme.test")).await;
    }

    let stored: Vec<String> = sqlx::query_scalar("select password_hash from credentials")
        .fetch_all(&mut app.owner().await)
        .await
        .expect("hashes");
    let mut salts: Vec<_> = stored
        .iter()
        .map(|hash| {
            let rest = hash.strip_prefix("$argon2id$v=19$m=19456,t=2,p=1$").expect(hash);
            let (salt, hash) = rest.split_once('$').expect("a salt and a hash");
            assert_eq!((salt.len(), hash.len()), (22, 43), "16 and 32 bytes");
            salt
        })
        .collect();
    salts.sort_unstable();
    salts.dedup();
    assert_eq!((stored.len(), salts.len()), (6, 6));
}

/// R7: the next sign-in hashes the password again with the new pepper.
#[tokio::test]
async fn a_new_pepper_is_applied_when_a_user_signs_in() {
    let files = tempfile::tempdir().expect("a folder");
    let line = |id: &str| format!("{id} {}", STANDARD.encode(id.repeat(40)));
    let (a, b) = (files.path().join("a"), files.path().join("b"));
    std::fs::write(&a, line("a")).expect("written");
    std::fs::write(&b, format!("{}\n{}", line("b"), line("a"))).expect("written");
    let peppered = |path: &Path| {
        let path = path.display().to_string();
        move |values: &mut Values| values.set("PASSWORD_PEPPER_PATH", path)
    };
    let plain = TestApp::with_full_hashes(|_| {}).await;
    plain.tenant("acme").await;
    let stored = async || {
        let query = sqlx::query_scalar("select password_hash from credentials");
        let hash: String = query.fetch_one(&mut plain.owner().await).await.expect("a hash");
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

    assert_eq!(stored().await, "m=19456,t=2,p=1");
    for (path, keyid) in [(&a, "YQ"), (&b, "Yg")] {
        let app = TestApp::on_with_full_hashes(&plain.database, peppered(path)).await;
        sign_in(&app).await.expect("signs in");
        assert_eq!(stored().await, format!("m=19456,t=2,p=1,keyid={keyid}"));
        sign_in(&app).await.expect("signs in");
    }
    let app = TestApp::on_with_full_hashes(&plain.database, peppered(&a)).await;
    for app in [&plain, &app] {
        refused(sign_in(app).await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn the_server_may_require_longer_passwords() {
    let app = TestApp::with(|values| values.set("PASSWORD_MIN_LENGTH", "15")).await;
    let anonymous = app.anonymous();

    let short = register(&anonymous, organisation_with("fourteen chars", "acme")).await;
    refused(short, Code::InvalidArgument, "INVALID_FIELDS");
    registered(&anonymous, organisation_with("fifteen chars !", "acme")).await;
    assert!(signs_in(&app, "acme", "fifteen chars !").await);
    assert!(!signs_in(&app, "acme", PASSWORD).await);
}
