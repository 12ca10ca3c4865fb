//! Users with an imported bcrypt hash.

use tenantry::proto::v1::{
    ChangePasswordRequest, CreateUserRequest, LoginRequest, LoginResponse,
    create_user_request::Credential,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, assert_refused};

/// A bcrypt hash with the lowest cost, in the format of this version.
fn bcrypt_hash(password: &str, version: bcrypt::Version) -> String {
    let parts = bcrypt::hash_with_salt(password, 4, [7; 16]).expect("a hash");
    parts.format_for_version(version)
}

async fn import_user(admin: &Client, email: &str, hash: &str) -> Result<String, Status> {
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
        .fetch_one(&mut app.owner_connection().await)
        .await
        .expect("a hash")
}

/// Stores a hash for a user directly.
async fn store_hash(app: &TestApp, user: &str, hash: &str) {
    sqlx::query("update credentials set password_hash = $2 where user_id = $1::uuid")
        .bind(user)
        .bind(hash)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("the hash is stored");
}

/// B06: later sign-ins do not replace the hash again.
#[tokio::test]
async fn the_first_sign_in_replaces_the_hash_with_argon2id() {
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;

    for (name, version) in
        [("a", bcrypt::Version::TwoA), ("b", bcrypt::Version::TwoB), ("y", bcrypt::Version::TwoY)]
    {
        let email = format!("{name}@acme.test");
        let hash = bcrypt_hash(PASSWORD, version);
        assert!(hash.starts_with(&format!("$2{name}$")));
        let user = import_user(&acme, &email, &hash).await.expect("imported");
        assert_eq!(stored_hash(&app, &user).await, hash);

        login(&app, &email, PASSWORD).await.expect("signed in");
        let new_hash = stored_hash(&app, &user).await;
        assert!(new_hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{new_hash}");
        login(&app, &email, PASSWORD).await.expect("signed in again");
        assert_eq!(stored_hash(&app, &user).await, new_hash, "rehashed only once");
    }
}

/// B06: only a proven password is hashed again.
#[tokio::test]
async fn a_failed_sign_in_does_not_replace_the_hash() {
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    let hash = bcrypt_hash(PASSWORD, bcrypt::Version::TwoB);
    let user = import_user(&acme, "ada@acme.test", &hash).await.expect("imported");

    let password_with_nul = format!("{PASSWORD}\0");
    for wrong_password in
        ["wrong", &PASSWORD.to_uppercase(), &password_with_nul, "\0", &PASSWORD[..10]]
    {
        let result = login(&app, "ada@acme.test", wrong_password).await;
        assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    assert_eq!(stored_hash(&app, &user).await, hash);
}

/// B06: after concurrent first sign-ins, the stored hash still accepts the password.
#[tokio::test]
async fn concurrent_first_sign_ins_all_succeed() {
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    for round in 0..5 {
        let email = format!("u{round}@acme.test");
        let hash = bcrypt_hash(PASSWORD, bcrypt::Version::TwoY);
        let user = import_user(&acme, &email, &hash).await.expect("imported");

        let sign_ins = (0..4).map(|_| login(&app, &email, PASSWORD));
        for result in futures::future::join_all(sign_ins).await {
            result.expect("signed in");
        }
        assert!(stored_hash(&app, &user).await.starts_with("$argon2id$"));
        login(&app, &email, PASSWORD).await.expect("signed in");
    }
}

/// B06: a sign-in also replaces an argon2id hash with outdated parameters.
#[tokio::test]
async fn weaker_argon2id_parameters_are_replaced_too() {
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    let user = acme.create_user("ada@acme.test").await;
    store_hash(&app, &user, &weak_argon2id(PASSWORD)).await;

    login(&app, "ada@acme.test", PASSWORD).await.expect("signed in");
    let new_hash = stored_hash(&app, &user).await;
    assert!(new_hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{new_hash}");
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
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    let valid_hash = bcrypt_hash(PASSWORD, bcrypt::Version::TwoB);

    for invalid_hash in [
        "",
        "plain text",
        &valid_hash[..59],
        &format!("{valid_hash}x"),
        &valid_hash.replace("$2b$", "$2x$"),
        &valid_hash.replace("$2b$", "$2$"),
        &valid_hash.replace("$04$", "$03$"),
        // N12: with such a cost, one tenant's users could block all other sign-ins.
        &valid_hash.replace("$04$", "$13$"),
        &valid_hash.replace("$04$", "$15$"),
        &valid_hash.replace("$04$", "$31$"),
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
    ] {
        let status =
            import_user(&acme, "ada@acme.test", invalid_hash).await.expect_err(invalid_hash);
        assert_eq!(status.code(), Code::InvalidArgument, "{invalid_hash}");
    }
}

/// N05: these hashes match the pattern of bcrypt, but bcrypt cannot parse them.
#[tokio::test]
async fn a_hash_that_cannot_be_parsed_is_refused_at_import() {
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    let valid_hash = bcrypt_hash(PASSWORD, bcrypt::Version::TwoB);
    // The last characters of salt and hash have unused bits, which must be zero.
    for invalid_hash in
        [format!("{}/{}", &valid_hash[..28], &valid_hash[29..]), format!("{}/", &valid_hash[..59])]
    {
        let reply = import_user(&acme, "ada@acme.test", &invalid_hash).await;
        let status =
            assert_refused(reply.map(Response::new), Code::InvalidArgument, "INVALID_FIELDS");
        assert!(status.message().contains("password_hash"), "{status:?}");
    }
}

/// N05: bcrypt reads only the first 72 bytes, so it cannot verify the end of a longer password.
/// Such a password is accepted, as in the old system, but the bcrypt hash stays, even after a
/// sign-in with the correct password.
#[tokio::test]
async fn a_password_that_bcrypt_reads_only_in_part_does_not_replace_the_hash() {
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    let long_password = "correct horse battery staple, ".repeat(3);
    let user =
        import_user(&acme, "ada@acme.test", &bcrypt_hash(&long_password, bcrypt::Version::TwoB))
            .await;
    let user = user.expect("imported");
    let hash = stored_hash(&app, &user).await;

    let password_with_other_end = format!("{}something else", &long_password[..72]);
    for accepted_password in [&password_with_other_end, &long_password, &long_password[..72]] {
        login(&app, "ada@acme.test", accepted_password)
            .await
            .expect("signed in, as in the old system");
        assert_eq!(stored_hash(&app, &user).await, hash);
    }
    let result = login(&app, "ada@acme.test", &long_password[..71]).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");

    // A new password is hashed with argon2id, which reads all bytes.
    let ada = app.anonymous().login("acme", "ada@acme.test", &long_password).await;
    let request = ChangePasswordRequest {
        current_password: long_password.clone(),
        new_password: format!("{long_password} and more"),
    };
    ada.auth().change_password(request).await.expect("changed");
    assert!(stored_hash(&app, &user).await.starts_with("$argon2id$"));
    let result = login(&app, "ada@acme.test", &long_password).await;
    assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
}

/// N05: the old system hashed the password as the user typed it, but the server hashes the NFKC
/// form.
#[tokio::test]
async fn imported_passwords_that_differ_from_their_nfkc_form_are_accepted() {
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    for (number, (hashed_password, typed_password)) in [
        // The password whose hash is imported, and the password that the user types.
        ("wait… what?", "wait… what?"),
        ("ﬁnesse of mine", "ﬁnesse of mine"),
        ("cafe\u{301} au lait", "cafe\u{301} au lait"),
        ("café au lait", "cafe\u{301} au lait"),
    ]
    .into_iter()
    .enumerate()
    {
        let email = format!("user-{number}@acme.test");
        let hash = bcrypt_hash(hashed_password, bcrypt::Version::TwoA);
        let user = import_user(&acme, &email, &hash).await.expect("imported");
        login(&app, &email, typed_password).await.expect("signed in");
        assert!(stored_hash(&app, &user).await.starts_with("$argon2id$"), "{typed_password}");
        login(&app, &email, typed_password).await.expect("signed in again");
    }

    // The same holds for the current password of a change.
    let hash = bcrypt_hash("wait… what?", bcrypt::Version::TwoB);
    let user = import_user(&acme, "ada@acme.test", &hash).await.expect("imported");
    let ada = app.anonymous().login("acme", "ada@acme.test", "wait… what?").await;
    // The sign-in replaced the imported hash, so the imported hash is stored again.
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
    let app = TestApp::with_production_hash_cost(|_| {}).await;
    let acme = app.create_tenant("acme").await;
    let user = acme.create_user("ada@acme.test").await;
    let unreadable_metric = r#"tenantry_password_hashes_unreadable_total{cause="form"}"#;
    let valid_hash = bcrypt_hash(PASSWORD, bcrypt::Version::TwoB);
    let count_before = app.metric(unreadable_metric).await.expect("a metric");
    let unreadable_hashes = [
        format!("{}/{}", &valid_hash[..28], &valid_hash[29..]),
        valid_hash.replace("$04$", "$31$"),
        "$argon2id$v=19$m=4294967295,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA".into(),
        "none".into(),
    ];
    for hash in &unreadable_hashes {
        store_hash(&app, &user, hash).await;
        let result = login(&app, "ada@acme.test", PASSWORD).await;
        assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    assert_eq!(app.metric(unreadable_metric).await, Some(count_before + 4.0));
}
