//! Users with an imported bcrypt hash.

use tenantry::proto::v1::{
    ChangePasswordRequest, CreateUserRequest, LoginRequest, LoginResponse,
    create_user_request::Credential,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, refused};

/// A bcrypt hash with the lowest cost, in the format of this version.
fn hash_of(password: &str, version: bcrypt::Version) -> String {
    let parts = bcrypt::hash_with_salt(password, 4, [7; 16]).expect("a hash");
    parts.format_for_version(version)
}

async fn import(admin: &Client, email: &str, hash: &str) -> Result<String, Status> {
    let request = CreateUserRequest {
        email: email.into(),
        credential: Some(Credential::PasswordHash(hash.into())),
        ..CreateUserRequest::default()
    };
    let reply = admin.users().create_user(request).await?;
    Ok(reply.into_inner().user.expect("the user").id)
}

async fn login(
    app: &TestApp,
    email: &str,
    password: &str,
) -> Result<Response<LoginResponse>, Status> {
    let request = LoginRequest {
        email: email.into(),
        password: password.into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    app.anonymous().auth().login(request).await
}

async fn stored_hash(app: &TestApp, user: &str) -> String {
    sqlx::query_scalar("select password_hash from credentials where user_id = $1::uuid")
        .bind(user)
        .fetch_one(&mut app.owner().await)
        .await
        .expect("a hash")
}

/// Stores a hash for a user directly.
async fn store_hash(app: &TestApp, user: &str, hash: &str) {
    sqlx::query("update credentials set password_hash = $2 where user_id = $1::uuid")
        .bind(user)
        .bind(hash)
        .execute(&mut app.owner().await)
        .await
        .expect("kept");
}

/// B06: an outdated hash is replaced at a successful sign-in.
#[tokio::test]
async fn the_first_sign_in_replaces_the_hash_with_argon2id() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;

    for (name, version) in
        [("a", bcrypt::Version::TwoA), ("b", bcrypt::Version::TwoB), ("y", bcrypt::Version::TwoY)]
    {
        let email = format!("{name}@acme.test");
        let hash = hash_of(PASSWORD, version);
        assert!(hash.starts_with(&format!("$2{name}$")));
        let user = import(&acme, &email, &hash).await.expect("imported");
        assert_eq!(stored_hash(&app, &user).await, hash);

        login(&app, &email, PASSWORD).await.expect("signs in");
        let now = stored_hash(&app, &user).await;
        assert!(now.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{now}");
        login(&app, &email, PASSWORD).await.expect("signs in again");
        assert_eq!(stored_hash(&app, &user).await, now, "rehashed only once");
    }
}

/// B06: an outdated hash is replaced at a successful sign-in.
#[tokio::test]
async fn a_failed_sign_in_keeps_the_hash() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    let hash = hash_of(PASSWORD, bcrypt::Version::TwoB);
    let user = import(&acme, "ada@acme.test", &hash).await.expect("imported");

    let nul = format!("{PASSWORD}\0");
    for wrong in ["wrong", &PASSWORD.to_uppercase(), &nul, "\0", &PASSWORD[..10]] {
        let result = login(&app, "ada@acme.test", wrong).await;
        refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    assert_eq!(stored_hash(&app, &user).await, hash);
}

/// B06: an outdated hash is replaced at a successful sign-in.
#[tokio::test]
async fn concurrent_first_sign_ins_all_succeed() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    for round in 0..5 {
        let email = format!("u{round}@acme.test");
        let hash = hash_of(PASSWORD, bcrypt::Version::TwoY);
        let user = import(&acme, &email, &hash).await.expect("imported");

        let sign_ins = (0..4).map(|_| login(&app, &email, PASSWORD));
        for result in futures::future::join_all(sign_ins).await {
            result.expect("signs in");
        }
        assert!(stored_hash(&app, &user).await.starts_with("$argon2id$"));
        login(&app, &email, PASSWORD).await.expect("signs in");
    }
}

/// B06: an outdated hash is replaced at a successful sign-in.
#[tokio::test]
async fn weaker_argon2id_parameters_are_replaced_too() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    let user = acme.create_user("ada@acme.test").await;
    store_hash(&app, &user, &weak_argon2id(PASSWORD)).await;

    login(&app, "ada@acme.test", PASSWORD).await.expect("signs in");
    let now = stored_hash(&app, &user).await;
    assert!(now.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{now}");
}

fn weak_argon2id(password: &str) -> String {
    use argon2::{Algorithm, Argon2, Params, Version};
    use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD as B64};

    let params = Params::new(12_288, 3, 1, Some(32)).expect("parameters");
    let (salt, mut out) = ([9; 16], [0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password.as_bytes(), &salt, &mut out)
        .expect("a hash");
    format!("$argon2id$v=19$m=12288,t=3,p=1${}${}", B64.encode(salt), B64.encode(out))
}

#[tokio::test]
async fn malformed_bcrypt_hashes_are_refused() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    let good = hash_of(PASSWORD, bcrypt::Version::TwoB);

    for bad in [
        "",
        "plain text",
        &good[..59],
        &format!("{good}x"),
        &good.replace("$2b$", "$2x$"),
        &good.replace("$2b$", "$2$"),
        &good.replace("$04$", "$03$"),
        // N12: with such a cost, one tenant's users could block all other sign-ins.
        &good.replace("$04$", "$13$"),
        &good.replace("$04$", "$15$"),
        &good.replace("$04$", "$31$"),
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
    ] {
        let status = import(&acme, "ada@acme.test", bad).await.expect_err(bad);
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
    }
}

/// N05: these hashes fit the pattern, but no password can ever be compared with them.
#[tokio::test]
async fn a_hash_that_cannot_be_parsed_is_refused_at_import() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    let good = hash_of(PASSWORD, bcrypt::Version::TwoB);
    // The last characters of salt and hash have unused bits, which must be zero.
    for bad in [format!("{}/{}", &good[..28], &good[29..]), format!("{}/", &good[..59])] {
        let reply = import(&acme, "ada@acme.test", &bad).await;
        let status = refused(reply.map(Response::new), Code::InvalidArgument, "INVALID_FIELDS");
        assert!(status.message().contains("password_hash"), "{status:?}");
    }
}

/// N05: bcrypt reads only 72 bytes. A longer password with a different end signs in, as in the old
/// system, but the server must not store a new hash of that password.
#[tokio::test]
async fn a_wrong_end_that_bcrypt_does_not_read_never_becomes_the_password() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    let long = "correct horse battery staple, ".repeat(3);
    let user = import(&acme, "ada@acme.test", &hash_of(&long, bcrypt::Version::TwoB)).await;
    let user = user.expect("imported");
    let hash = stored_hash(&app, &user).await;

    let tail = format!("{}something else", &long[..72]);
    for right in [&tail, &long, &long[..72]] {
        login(&app, "ada@acme.test", right).await.expect("signs in, as in the old system");
        assert_eq!(stored_hash(&app, &user).await, hash);
    }
    let result = login(&app, "ada@acme.test", &long[..71]).await;
    refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");

    // A new password is hashed with argon2id, which reads all bytes.
    let ada = app.anonymous().login("acme", "ada@acme.test", &long).await;
    let request = ChangePasswordRequest {
        current_password: long.clone(),
        new_password: format!("{long} and more"),
    };
    ada.auth().change_password(request).await.expect("changed");
    assert!(stored_hash(&app, &user).await.starts_with("$argon2id$"));
    let result = login(&app, "ada@acme.test", &long).await;
    refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
}

/// N05: the old system hashed the text as typed, but the server hashes its NFKC form.
#[tokio::test]
async fn passwords_that_nfkc_changes_sign_in_as_typed() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    for (number, (hashed, typed)) in [
        ("wait… what?", "wait… what?"),
        ("ﬁnesse of mine", "ﬁnesse of mine"),
        ("cafe\u{301} au lait", "cafe\u{301} au lait"),
        ("café au lait", "cafe\u{301} au lait"),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("user-{number}@acme.test");
        let hash = hash_of(hashed, bcrypt::Version::TwoA);
        let user = import(&acme, &email, &hash).await.expect("imported");
        login(&app, &email, typed).await.expect("signs in");
        assert!(stored_hash(&app, &user).await.starts_with("$argon2id$"), "{typed}");
        login(&app, &email, typed).await.expect("signs in again");
    }

    // The same holds for the current password of a change.
    let hash = hash_of("wait… what?", bcrypt::Version::TwoB);
    let user = import(&acme, "ada@acme.test", &hash).await.expect("imported");
    let ada = app.anonymous().login("acme", "ada@acme.test", "wait… what?").await;
    store_hash(&app, &user, &hash).await;
    let request = ChangePasswordRequest {
        current_password: "wait… what?".into(),
        new_password: "a password that is new".into(),
    };
    ada.auth().change_password(request).await.expect("changed");
}

/// N05: an unreadable stored hash is treated as a wrong password, not as a server error.
#[tokio::test]
async fn an_unreadable_stored_hash_counts_as_a_wrong_password() {
    let app = TestApp::with_full_hashes(|_| {}).await;
    let acme = app.tenant("acme").await;
    let user = acme.create_user("ada@acme.test").await;
    let unreadable = r#"tenantry_password_hashes_unreadable_total{cause="form"}"#;
    let good = hash_of(PASSWORD, bcrypt::Version::TwoB);
    let before = app.metric(unreadable).await.expect("a metric");
    let bad = [
        format!("{}/{}", &good[..28], &good[29..]),
        good.replace("$04$", "$31$"),
        "$argon2id$v=19$m=4294967295,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA".into(),
        "none".into(),
    ];
    for hash in &bad {
        store_hash(&app, &user, hash).await;
        let result = login(&app, "ada@acme.test", PASSWORD).await;
        refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    assert_eq!(app.metric(unreadable).await, Some(before + 4.0));
}
