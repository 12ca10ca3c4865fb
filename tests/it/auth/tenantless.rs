//! Sign-in by email alone (N15).

use tenantry::proto::v1::{
    CreateUserRequest, DisableUserRequest, LoginRequest, UpdateUserRequest, WhoAmIRequest,
    create_user_request::Credential,
};
use tonic::{Code, Response, Status};

use crate::{
    harness::{Client, PASSWORD, TestApp, mask, refused},
    limits::{address, at, believing},
};

const EMAIL: &str = "ada@both.test";
const OTHER: &str = "quite another battery";

fn attempt(email: &str, password: &str) -> LoginRequest {
    LoginRequest { email: email.into(), password: password.into(), ..LoginRequest::default() }
}

async fn served(mode: &'static str) -> TestApp {
    TestApp::with(|values| {
        believing(values);
        values.set("TENANTLESS_SIGN_IN", mode);
    })
    .await
}

/// The slug of the tenant that a sign-in by email alone leads to.
async fn lands_in(client: &Client, password: &str) -> Result<String, Status> {
    let tokens = client.auth().login(attempt(EMAIL, password)).await?.into_inner();
    let me = client.with_token(&tokens.access_token).auth().who_am_i(WhoAmIRequest {}).await;
    Ok(me.expect("itself").into_inner().tenant.expect("a tenant").slug)
}

#[track_caller]
fn nowhere(reply: Result<String, Status>) {
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

/// N15: a stranger who registers the address elsewhere changes nothing for its owner.
#[tokio::test]
async fn only_an_address_that_was_proved_signs_in_without_a_tenant() {
    let app = served("verified").await;
    let (acme, stranger) = (app.tenant("acme").await, app.tenant("stranger").await);
    let theirs = add(&stranger, OTHER).await;
    let nobody = app.anonymous();
    nowhere(lands_in(&nobody, OTHER).await);
    let ada = add(&acme, PASSWORD).await;
    nowhere(lands_in(&nobody, PASSWORD).await);

    verify(&app, &ada).await;
    assert_eq!(lands_in(&nobody, PASSWORD).await.expect("signs in"), "acme");
    nowhere(lands_in(&nobody, OTHER).await);
    nobody.login("stranger", EMAIL, OTHER).await;

    // The owner's own second account.
    verify(&app, &theirs).await;
    assert_eq!(lands_in(&nobody, OTHER).await.expect("signs in"), "stranger");
    assert_eq!(lands_in(&nobody, PASSWORD).await.expect("signs in"), "acme");

    // An address that changes is to be proved anew.
    for email in ["other@both.test", EMAIL] {
        let request = UpdateUserRequest {
            user_id: ada.clone(),
            email: Some(email.into()),
            update_mask: mask(&["email"]),
            ..UpdateUserRequest::default()
        };
        acme.users().update_user(request).await.expect("changed");
    }
    nowhere(lands_in(&nobody, PASSWORD).await);
}

/// N15: verified first, then the oldest, three at most; and those who may not sign in
/// take nobody's place.
#[tokio::test]
async fn where_any_address_counts_those_that_were_proved_come_first() {
    let app = served("any").await;
    let nobody = app.anonymous();
    let mut users = Vec::new();
    for slug in ["a", "b", "c", "d"] {
        let admin = app.tenant(slug).await;
        let user = add(&admin, if slug == "d" { OTHER } else { PASSWORD }).await;
        users.push((admin, user));
    }
    assert_eq!(lands_in(&nobody, PASSWORD).await.expect("signs in"), "a");
    nowhere(lands_in(&nobody, OTHER).await);

    verify(&app, &users[2].1).await;
    assert_eq!(lands_in(&nobody, PASSWORD).await.expect("signs in"), "c");

    let (admin, user_id) = users[0].clone();
    admin.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    assert_eq!(lands_in(&nobody, OTHER).await.expect("signs in"), "d");
}

#[tokio::test]
async fn where_it_is_off_the_tenant_must_be_named() {
    let app = served("off").await;
    let acme = app.tenant("acme").await;
    for email in [acme.email.as_str(), "nobody@acme.test"] {
        let reply = app.anonymous().auth().login(attempt(email, PASSWORD)).await;
        refused(reply, Code::InvalidArgument, "TENANT_REQUIRED");
    }
}

/// A sign-in with a password that names its tenant.
async fn directly(client: &Client, slug: &str, email: &str, password: &str) -> Option<Status> {
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

/// N15: a stranger who guesses without a tenant learns nowhere which tenant has the address.
#[tokio::test]
async fn guesses_without_a_tenant_do_not_show_where_a_tenant_is_named() {
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
            wrong(directly(&stranger, slug, email, "not this one").await);
        }
    }
    assert!(directly(&stranger, "acme", EMAIL, PASSWORD).await.is_none(), "it signs in");
}

/// N15: nor by a tenant's rate.
#[tokio::test]
async fn sign_ins_without_a_tenant_count_apart_for_the_tenants_of_their_accounts() {
    let app = TestApp::with(|values| {
        believing(values);
        values.set("TENANTLESS_SIGN_IN", "any");
        values.set("RATE_LIMIT_SIGN_IN", "off,5/1h");
    })
    .await;
    let acme = app.tenant("acme").await;
    add(&acme, PASSWORD).await;
    for _ in 0..5 {
        assert_eq!(lands_in(&at(&app, &address()), PASSWORD).await.expect("signs in"), "acme");
    }
    // Its accounts are left out from here on.
    nowhere(lands_in(&at(&app, &address()), PASSWORD).await);
    assert!(directly(&at(&app, &address()), "acme", EMAIL, PASSWORD).await.is_none());
}

/// N15: an account that must wait, for guesses of either way, is not tried without a tenant,
/// and the answer does not show it.
#[tokio::test]
async fn guesses_without_a_tenant_count_for_each_account_that_they_are_at() {
    let app = served("any").await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    add(&a, PASSWORD).await;
    add(&b, OTHER).await;

    let client = at(&app, &address());
    for _ in 0..10 {
        wrong(directly(&client, "a", EMAIL, "not this one").await);
    }
    nowhere(lands_in(&client, PASSWORD).await);
    assert_eq!(lands_in(&client, OTHER).await.expect("signs in"), "b");
    limited(directly(&client, "a", EMAIL, PASSWORD).await);

    // A success at one is a wrong guess at those before it, and at none after it.
    let client = at(&app, &address());
    for _ in 0..10 {
        assert_eq!(lands_in(&client, OTHER).await.expect("signs in"), "b");
    }
    nowhere(lands_in(&client, PASSWORD).await);
    assert!(directly(&client, "a", EMAIL, PASSWORD).await.is_none(), "it signs in");
    let client = at(&app, &address());
    for _ in 0..11 {
        assert_eq!(lands_in(&client, PASSWORD).await.expect("signs in"), "a");
    }
    assert_eq!(lands_in(&client, OTHER).await.expect("signs in"), "b");
}

/// N15: whoever has an account with the address can't guess at another with each of its
/// sign-ins, from as many networks as there are.
#[tokio::test]
async fn guesses_without_a_tenant_at_an_account_are_bounded_over_all_networks() {
    let app = served("any").await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    add(&a, PASSWORD).await;
    add(&b, OTHER).await;
    let home = at(&app, &address());
    assert_eq!(lands_in(&home, PASSWORD).await.expect("signs in"), "a");
    for _ in 0..10 {
        let client = at(&app, &address());
        for _ in 0..10 {
            assert_eq!(lands_in(&client, OTHER).await.expect("signs in"), "b");
        }
    }
    nowhere(lands_in(&at(&app, &address()), PASSWORD).await);
    assert!(directly(&at(&app, &address()), "a", EMAIL, PASSWORD).await.is_none());
    assert_eq!(lands_in(&home, PASSWORD).await.expect("a network that is known"), "a");
}

/// Each tenant whose account was guessed at has it in its trail, and where there is none
/// the server has.
#[tokio::test]
async fn a_failure_is_recorded_with_every_account_that_was_tried() {
    let app = served("any").await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    add(&a, PASSWORD).await;
    add(&b, PASSWORD).await;
    nowhere(lands_in(&app.anonymous(), "not this one").await);
    for tenant in [&a, &b] {
        assert_eq!(app.audited(&tenant.tenant_id, "sign_in_failed").await, 1);
    }
    let nobody = app.anonymous().auth().login(attempt("nobody@both.test", PASSWORD)).await;
    refused(nobody, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let nil = uuid::Uuid::nil().to_string();
    assert_eq!(app.audited(&nil, "sign_in_failed").await, 1);
}
