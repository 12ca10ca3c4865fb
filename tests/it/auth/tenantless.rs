//! Sign-in with an email but without a tenant (N15).

use tenantry::proto::v1::{
    CreateUserRequest, DisableUserRequest, LoginRequest, UpdateUserRequest, WhoAmIRequest,
    create_user_request::Credential,
};
use tonic::{Code, Response, Status};

use crate::{
    harness::{Client, PASSWORD, TestApp, mask, refused},
    limits::{address, at, trusting_local_proxy},
};

const EMAIL: &str = "ada@both.test";
const OTHER: &str = "quite another battery";

fn attempt(email: &str, password: &str) -> LoginRequest {
    LoginRequest { email: email.into(), password: password.into(), ..LoginRequest::default() }
}

async fn served(mode: &'static str) -> TestApp {
    TestApp::with(|values| {
        trusting_local_proxy(values);
        values.set("TENANTLESS_SIGN_IN", mode);
    })
    .await
}

/// Signs in without a tenant. Returns the slug of the tenant that was found.
async fn signs_in_to(client: &Client, password: &str) -> Result<String, Status> {
    let tokens = client.auth().login(attempt(EMAIL, password)).await?.into_inner();
    let me = client.with_token(&tokens.access_token).auth().who_am_i(WhoAmIRequest {}).await;
    Ok(me.expect("itself").into_inner().tenant.expect("a tenant").slug)
}

#[track_caller]
fn is_refused(reply: Result<String, Status>) {
    let reply = reply.map(Response::new);
    refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
}

async fn add(tenant: &Client, password: &str) -> String {
    let request = CreateUserRequest {
        email: EMAIL.into(),
        credential: Some(Credential::Password(password.into())),
        ..CreateUserRequest::default()
    };
    let made = tenant.users().create_user(request).await.expect("made").into_inner();
    made.user.expect("the user").id
}

async fn verify(app: &TestApp, user: &str) {
    sqlx::query("update users set email_verified = true where user_id = $1::uuid")
        .bind(user)
        .execute(&mut app.owner().await)
        .await
        .expect("verified");
}

/// N15: a stranger who registers the address in another tenant changes nothing for its owner.
#[tokio::test]
async fn only_a_verified_address_signs_in_without_a_tenant() {
    let app = served("verified").await;
    let (acme, stranger) = (app.tenant("acme").await, app.tenant("stranger").await);
    let theirs = add(&stranger, OTHER).await;
    let nobody = app.anonymous();
    is_refused(signs_in_to(&nobody, OTHER).await);
    let ada = add(&acme, PASSWORD).await;
    is_refused(signs_in_to(&nobody, PASSWORD).await);

    verify(&app, &ada).await;
    assert_eq!(signs_in_to(&nobody, PASSWORD).await.expect("signs in"), "acme");
    is_refused(signs_in_to(&nobody, OTHER).await);
    nobody.login("stranger", EMAIL, OTHER).await;

    // A second account of the owner.
    verify(&app, &theirs).await;
    assert_eq!(signs_in_to(&nobody, OTHER).await.expect("signs in"), "stranger");
    assert_eq!(signs_in_to(&nobody, PASSWORD).await.expect("signs in"), "acme");

    // A changed address is no longer verified.
    for email in ["other@both.test", EMAIL] {
        let request = UpdateUserRequest {
            user_id: ada.clone(),
            email: Some(email.into()),
            update_mask: mask(&["email"]),
            ..UpdateUserRequest::default()
        };
        acme.users().update_user(request).await.expect("changed");
    }
    is_refused(signs_in_to(&nobody, PASSWORD).await);
}

/// N15: verified accounts come first, then the oldest, at most three. Accounts that may not
/// sign in do not count.
#[tokio::test]
async fn in_mode_any_verified_accounts_are_tried_first() {
    let app = served("any").await;
    let nobody = app.anonymous();
    let mut users = Vec::new();
    for slug in ["a", "b", "c", "d"] {
        let admin = app.tenant(slug).await;
        let user = add(&admin, if slug == "d" { OTHER } else { PASSWORD }).await;
        users.push((admin, user));
    }
    assert_eq!(signs_in_to(&nobody, PASSWORD).await.expect("signs in"), "a");
    is_refused(signs_in_to(&nobody, OTHER).await);

    verify(&app, &users[2].1).await;
    assert_eq!(signs_in_to(&nobody, PASSWORD).await.expect("signs in"), "c");

    let (admin, user_id) = users[0].clone();
    admin.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    assert_eq!(signs_in_to(&nobody, OTHER).await.expect("signs in"), "d");
}

#[tokio::test]
async fn in_mode_off_the_tenant_must_be_named() {
    let app = served("off").await;
    let acme = app.tenant("acme").await;
    for email in [acme.email.as_str(), "nobody@acme.test"] {
        let reply = app.anonymous().auth().login(attempt(email, PASSWORD)).await;
        refused(reply, Code::InvalidArgument, "TENANT_REQUIRED");
    }
}

/// Signs in with the tenant's slug. Returns the status of a failure.
async fn sign_in_with_tenant(
    client: &Client,
    slug: &str,
    email: &str,
    password: &str,
) -> Option<Status> {
    let request = LoginRequest { organization_slug: slug.into(), ..attempt(email, password) };
    client.auth().login(request).await.err()
}

#[track_caller]
fn wrong(status: Option<Status>) {
    let reply = Err::<Response<()>, _>(status.expect("a wrong password"));
    refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
}

#[track_caller]
fn limited(status: Option<Status>) {
    let reply = Err::<Response<()>, _>(status.expect("too many"));
    refused(reply, Code::ResourceExhausted, "RATE_LIMITED");
}

/// N15: guesses without a tenant do not reveal which tenant has the address.
#[tokio::test]
async fn guesses_without_a_tenant_do_not_limit_sign_ins_with_a_tenant() {
    let app = served("any").await;
    let acme = app.tenant("acme").await;
    app.tenant("beta").await;
    add(&acme, PASSWORD).await;
    let stranger = at(&app, &address());
    let emails = [EMAIL, "nobody@both.test"];
    for email in emails {
        for _ in 0..10 {
            wrong(stranger.auth().login(attempt(email, "not this one")).await.err());
        }
        limited(stranger.auth().login(attempt(email, PASSWORD)).await.err());
    }
    for slug in ["acme", "beta", "nowhere"] {
        for email in emails {
            wrong(sign_in_with_tenant(&stranger, slug, email, "not this one").await);
        }
    }
    assert!(
        sign_in_with_tenant(&stranger, "acme", EMAIL, PASSWORD).await.is_none(),
        "the right password was refused"
    );
}

/// N15: a tenant's rate limit does not reveal it either.
#[tokio::test]
async fn sign_ins_without_a_tenant_are_counted_separately_for_each_accounts_tenant() {
    let app = TestApp::with(|values| {
        trusting_local_proxy(values);
        values.set("TENANTLESS_SIGN_IN", "any");
        values.set("RATE_LIMIT_SIGN_IN", "off,5/1h");
    })
    .await;
    let acme = app.tenant("acme").await;
    add(&acme, PASSWORD).await;
    for _ in 0..5 {
        assert_eq!(signs_in_to(&at(&app, &address()), PASSWORD).await.expect("signs in"), "acme");
    }
    // From here on, the tenant's accounts are left out.
    is_refused(signs_in_to(&at(&app, &address()), PASSWORD).await);
    assert!(sign_in_with_tenant(&at(&app, &address()), "acme", EMAIL, PASSWORD).await.is_none());
}

/// N15: a sign-in without a tenant does not try an account that must wait because of earlier
/// guesses, with or without a tenant. The answer does not show that.
#[tokio::test]
async fn guesses_without_a_tenant_count_for_each_account_they_try() {
    let app = served("any").await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    add(&a, PASSWORD).await;
    add(&b, OTHER).await;

    let client = at(&app, &address());
    for _ in 0..10 {
        wrong(sign_in_with_tenant(&client, "a", EMAIL, "not this one").await);
    }
    is_refused(signs_in_to(&client, PASSWORD).await);
    assert_eq!(signs_in_to(&client, OTHER).await.expect("signs in"), "b");
    limited(sign_in_with_tenant(&client, "a", EMAIL, PASSWORD).await);

    // A success at one account counts as a wrong guess at the accounts tried before it, but not
    // at those after it.
    let client = at(&app, &address());
    for _ in 0..10 {
        assert_eq!(signs_in_to(&client, OTHER).await.expect("signs in"), "b");
    }
    is_refused(signs_in_to(&client, PASSWORD).await);
    assert!(
        sign_in_with_tenant(&client, "a", EMAIL, PASSWORD).await.is_none(),
        "the right password was refused"
    );
    let client = at(&app, &address());
    for _ in 0..11 {
        assert_eq!(signs_in_to(&client, PASSWORD).await.expect("signs in"), "a");
    }
    assert_eq!(signs_in_to(&client, OTHER).await.expect("signs in"), "b");
}

/// N15: the holder of an account with the address cannot guess another account's password with
/// each sign-in, from an unlimited number of networks.
#[tokio::test]
async fn guesses_without_a_tenant_at_an_account_are_limited_over_all_networks() {
    let app = served("any").await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    add(&a, PASSWORD).await;
    add(&b, OTHER).await;
    let home = at(&app, &address());
    assert_eq!(signs_in_to(&home, PASSWORD).await.expect("signs in"), "a");
    for _ in 0..10 {
        let client = at(&app, &address());
        for _ in 0..10 {
            assert_eq!(signs_in_to(&client, OTHER).await.expect("signs in"), "b");
        }
    }
    is_refused(signs_in_to(&at(&app, &address()), PASSWORD).await);
    assert!(sign_in_with_tenant(&at(&app, &address()), "a", EMAIL, PASSWORD).await.is_none());
    assert_eq!(signs_in_to(&home, PASSWORD).await.expect("signs in from a known network"), "a");
}

/// Each tenant whose account was tried has the failure in its trail. Without any account it is
/// recorded under the nil tenant.
#[tokio::test]
async fn a_failure_is_recorded_for_every_account_that_was_tried() {
    let app = served("any").await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    add(&a, PASSWORD).await;
    add(&b, PASSWORD).await;
    is_refused(signs_in_to(&app.anonymous(), "not this one").await);
    for tenant in [&a, &b] {
        assert_eq!(app.audited(&tenant.tenant_id, "sign_in_failed").await, 1);
    }
    let nobody = app.anonymous().auth().login(attempt("nobody@both.test", PASSWORD)).await;
    refused(nobody, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let nil = uuid::Uuid::nil().to_string();
    assert_eq!(app.audited(&nil, "sign_in_failed").await, 1);
}
