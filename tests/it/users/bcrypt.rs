//! Users who come with a bcrypt hash from elsewhere.

use tenantry::proto::v1::{
    CreateUserRequest, LoginRequest, LoginResponse, create_user_request::Credential,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, PASSWORD, TestApp, refused};

/// bcrypt with the least cost, as the version writes it.
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

async fn kept(app: &TestApp, user: &str) -> String {
    sqlx::query_scalar("select password_hash from credentials where user_id = $1::uuid")
        .bind(user)
        .fetch_one(&mut app.owner().await)
        .await
        .expect("a hash")
}

/// B06
#[tokio::test]
async fn the_first_sign_in_turns_the_hash_into_argon2id() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;

    for (name, version) in
        [("a", bcrypt::Version::TwoA), ("b", bcrypt::Version::TwoB), ("y", bcrypt::Version::TwoY)]
    {
        let email = format!("{name}@acme.test");
        let hash = hash_of(PASSWORD, version);
        assert!(hash.starts_with(&format!("$2{name}$")));
        let user = import(&acme, &email, &hash).await.expect("imported");
        assert_eq!(kept(&app, &user).await, hash);

        login(&app, &email, PASSWORD).await.expect("signs in");
        let now = kept(&app, &user).await;
        assert!(now.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{now}");
        login(&app, &email, PASSWORD).await.expect("signs in again");
        assert_eq!(kept(&app, &user).await, now, "rehashed once");
    }
}

/// B06
#[tokio::test]
async fn a_failed_sign_in_leaves_the_hash_alone() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let hash = hash_of(PASSWORD, bcrypt::Version::TwoB);
    let user = import(&acme, "ada@acme.test", &hash).await.expect("imported");

    let nul = format!("{PASSWORD}\0");
    for wrong in ["wrong", &PASSWORD.to_uppercase(), &nul, "\0", &PASSWORD[..10]] {
        let result = login(&app, "ada@acme.test", wrong).await;
        refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    assert_eq!(kept(&app, &user).await, hash);
}

/// B06
#[tokio::test]
async fn first_sign_ins_at_once_all_succeed() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    for round in 0..5 {
        let email = format!("u{round}@acme.test");
        let hash = hash_of(PASSWORD, bcrypt::Version::TwoY);
        let user = import(&acme, &email, &hash).await.expect("imported");

        let sign_ins = (0..4).map(|_| login(&app, &email, PASSWORD));
        for result in futures::future::join_all(sign_ins).await {
            result.expect("signs in");
        }
        assert!(kept(&app, &user).await.starts_with("$argon2id$"));
        login(&app, &email, PASSWORD).await.expect("signs in");
    }
}

/// B06
#[tokio::test]
async fn weaker_argon2id_is_replaced_too() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let user = acme.create_user("ada@acme.test").await;
    sqlx::query("update credentials set password_hash = $2 where user_id = $1::uuid")
        .bind(&user)
        .bind(weak_argon2id(PASSWORD))
        .execute(&mut app.owner().await)
        .await
        .expect("weakened");

    login(&app, "ada@acme.test", PASSWORD).await.expect("signs in");
    let now = kept(&app, &user).await;
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
async fn what_is_no_bcrypt_hash_is_refused() {
    let app = TestApp::spawn().await;
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
        &good.replace("$04$", "$15$"),
        &good.replace("$04$", "$31$"),
        "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAA",
    ] {
        let status = import(&acme, "ada@acme.test", bad).await.expect_err(bad);
        assert_eq!(status.code(), Code::InvalidArgument, "{bad}");
    }
}
