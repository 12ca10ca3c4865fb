//! N15: sign-in with an email address and without a tenant.

use tenantry::proto::v1::{
    CreateUserRequest, DisableUserRequest, LoginRequest, WhoAmIRequest,
    create_user_request::Credential,
};
use tonic::{Code, Response, Status};

use crate::{
    harness::{Client, PASSWORD, TestApp, assert_refused},
    limits::{client_from, new_network_address, trusting_local_proxy},
};

const EMAIL: &str = "ada@both.test";
const OTHER_PASSWORD: &str = "quite another battery";

fn login_request(email: &str, password: &str) -> LoginRequest {
    LoginRequest { email: email.into(), password: password.into(), ..LoginRequest::default() }
}

async fn server_with_mode(mode: &'static str) -> TestApp {
    TestApp::with_settings(|values| {
        trusting_local_proxy(values);
        values.set("TENANTLESS_SIGN_IN", mode);
    })
    .await
}

/// Signs in without a tenant. Returns the slug of the matching account's tenant.
async fn sign_in_without_tenant(client: &Client, password: &str) -> Result<String, Status> {
    let tokens = client.auth().login(login_request(EMAIL, password)).await?.into_inner();
    let me = client.with_token(&tokens.access_token).auth().who_am_i(WhoAmIRequest {}).await;
    Ok(me.expect("an identity").into_inner().tenant.expect("a tenant").slug)
}

#[track_caller]
fn assert_sign_in_refused(reply: Result<String, Status>) {
    let reply = reply.map(Response::new);
    assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
}

async fn create_account(tenant: &Client, password: &str) -> String {
    let request = CreateUserRequest {
        email: EMAIL.into(),
        credential: Some(Credential::Password(password.into())),
        ..CreateUserRequest::default()
    };
    let reply = tenant.users().create_user(request).await.expect("created").into_inner();
    reply.user.expect("the user").id
}

async fn mark_email_verified(app: &TestApp, user: &str) {
    sqlx::query("update users set email_verified = true where user_id = $1::uuid")
        .bind(user)
        .execute(&mut app.owner_connection().await)
        .await
        .expect("verified");
}

/// N15: a stranger who registers the address in another tenant does not affect the sign-in of
/// the owner of the address.
#[tokio::test]
async fn only_a_verified_address_signs_in_without_a_tenant() {
    let app = server_with_mode("verified").await;
    let (acme, stranger) = (app.create_tenant("acme").await, app.create_tenant("stranger").await);
    let stranger_account = create_account(&stranger, OTHER_PASSWORD).await;
    let anonymous = app.anonymous();
    assert_sign_in_refused(sign_in_without_tenant(&anonymous, OTHER_PASSWORD).await);
    let ada = create_account(&acme, PASSWORD).await;
    assert_sign_in_refused(sign_in_without_tenant(&anonymous, PASSWORD).await);

    mark_email_verified(&app, &ada).await;
    assert_eq!(sign_in_without_tenant(&anonymous, PASSWORD).await.expect("signs in"), "acme");
    assert_sign_in_refused(sign_in_without_tenant(&anonymous, OTHER_PASSWORD).await);
    anonymous.login("stranger", EMAIL, OTHER_PASSWORD).await;

    // Now the second account is also a verified account of the owner.
    mark_email_verified(&app, &stranger_account).await;
    assert_eq!(
        sign_in_without_tenant(&anonymous, OTHER_PASSWORD).await.expect("signs in"),
        "stranger"
    );
    assert_eq!(sign_in_without_tenant(&anonymous, PASSWORD).await.expect("signs in"), "acme");

    // A changed address is no longer verified.
    for email in ["other@both.test", EMAIL] {
        acme.change_email(&ada, email).await.expect("changed");
    }
    assert_sign_in_refused(sign_in_without_tenant(&anonymous, PASSWORD).await);
}

/// N15: the server tries at most three accounts: verified accounts first, then the oldest accounts.
/// Accounts that may not sign in are not among the three.
#[tokio::test]
async fn in_mode_any_verified_accounts_are_tried_first() {
    let app = server_with_mode("any").await;
    let anonymous = app.anonymous();
    let mut users = Vec::new();
    for slug in ["a", "b", "c", "d"] {
        let admin = app.create_tenant(slug).await;
        let user =
            create_account(&admin, if slug == "d" { OTHER_PASSWORD } else { PASSWORD }).await;
        users.push((admin, user));
    }
    assert_eq!(sign_in_without_tenant(&anonymous, PASSWORD).await.expect("signs in"), "a");
    assert_sign_in_refused(sign_in_without_tenant(&anonymous, OTHER_PASSWORD).await);

    mark_email_verified(&app, &users[2].1).await;
    assert_eq!(sign_in_without_tenant(&anonymous, PASSWORD).await.expect("signs in"), "c");

    let (admin, user_id) = users[0].clone();
    admin.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
    assert_eq!(sign_in_without_tenant(&anonymous, OTHER_PASSWORD).await.expect("signs in"), "d");
}

#[tokio::test]
async fn in_mode_off_a_sign_in_must_specify_the_tenant() {
    let app = server_with_mode("off").await;
    let acme = app.create_tenant("acme").await;
    for email in [acme.email.as_str(), "nobody@acme.test"] {
        let reply = app.anonymous().auth().login(login_request(email, PASSWORD)).await;
        assert_refused(reply, Code::InvalidArgument, "TENANT_REQUIRED");
    }
}

/// Signs in with the tenant's slug. Returns the status of a failure.
async fn sign_in_with_tenant(
    client: &Client,
    slug: &str,
    email: &str,
    password: &str,
) -> Option<Status> {
    let request = LoginRequest { organization_slug: slug.into(), ..login_request(email, password) };
    client.auth().login(request).await.err()
}

#[track_caller]
fn assert_wrong_password(status: Option<Status>) {
    let reply = Err::<Response<()>, _>(status.expect("the wrong password is refused"));
    assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
}

#[track_caller]
fn assert_rate_limited(status: Option<Status>) {
    let reply = Err::<Response<()>, _>(status.expect("a call above the limit is refused"));
    assert_refused(reply, Code::ResourceExhausted, "RATE_LIMITED");
}

/// N15: guesses without a tenant do not reveal which tenant has the address.
#[tokio::test]
async fn guesses_without_a_tenant_do_not_limit_sign_ins_with_a_tenant() {
    let app = server_with_mode("any").await;
    let acme = app.create_tenant("acme").await;
    app.create_tenant("beta").await;
    create_account(&acme, PASSWORD).await;
    let stranger = client_from(&app, &new_network_address());
    let emails = [EMAIL, "nobody@both.test"];
    for email in emails {
        // Ten wrong guesses reach the limit for one network.
        for _ in 0..10 {
            assert_wrong_password(
                stranger.auth().login(login_request(email, "not this one")).await.err(),
            );
        }
        assert_rate_limited(stranger.auth().login(login_request(email, PASSWORD)).await.err());
    }
    for slug in ["acme", "beta", "nowhere"] {
        for email in emails {
            assert_wrong_password(
                sign_in_with_tenant(&stranger, slug, email, "not this one").await,
            );
        }
    }
    assert!(
        sign_in_with_tenant(&stranger, "acme", EMAIL, PASSWORD).await.is_none(),
        "the right password was refused"
    );
}

/// N15: a tenant's rate limit does not reveal that the tenant has the address.
#[tokio::test]
async fn sign_ins_without_a_tenant_are_counted_separately_for_each_accounts_tenant() {
    let app = TestApp::with_settings(|values| {
        trusting_local_proxy(values);
        values.set("TENANTLESS_SIGN_IN", "any");
        values.set("RATE_LIMIT_SIGN_IN", "off,5/1h");
    })
    .await;
    let acme = app.create_tenant("acme").await;
    create_account(&acme, PASSWORD).await;
    for _ in 0..5 {
        assert_eq!(
            sign_in_without_tenant(&client_from(&app, &new_network_address()), PASSWORD)
                .await
                .expect("signs in"),
            "acme"
        );
    }
    // The limit of five calls is reached, so the tenant's accounts are not tried.
    assert_sign_in_refused(
        sign_in_without_tenant(&client_from(&app, &new_network_address()), PASSWORD).await,
    );
    assert!(
        sign_in_with_tenant(&client_from(&app, &new_network_address()), "acme", EMAIL, PASSWORD)
            .await
            .is_none()
    );
}

/// N15: a sign-in without a tenant skips an account that is limited because of earlier guesses,
/// with or without a tenant. The response does not reveal the skipped account.
#[tokio::test]
async fn guesses_without_a_tenant_count_for_each_account_that_is_tried() {
    let app = server_with_mode("any").await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    create_account(&a, PASSWORD).await;
    create_account(&b, OTHER_PASSWORD).await;

    let client = client_from(&app, &new_network_address());
    for _ in 0..10 {
        assert_wrong_password(sign_in_with_tenant(&client, "a", EMAIL, "not this one").await);
    }
    assert_sign_in_refused(sign_in_without_tenant(&client, PASSWORD).await);
    assert_eq!(sign_in_without_tenant(&client, OTHER_PASSWORD).await.expect("signs in"), "b");
    assert_rate_limited(sign_in_with_tenant(&client, "a", EMAIL, PASSWORD).await);

    // A sign-in to an account is also a wrong guess for each account that was tried before this
    // account. It is no guess for the accounts after this account.
    let client = client_from(&app, &new_network_address());
    for _ in 0..10 {
        assert_eq!(sign_in_without_tenant(&client, OTHER_PASSWORD).await.expect("signs in"), "b");
    }
    assert_sign_in_refused(sign_in_without_tenant(&client, PASSWORD).await);
    assert!(
        sign_in_with_tenant(&client, "a", EMAIL, PASSWORD).await.is_none(),
        "the right password was refused"
    );
    let client = client_from(&app, &new_network_address());
    // A sign-in to the first account that is tried is no guess for the accounts after it.
    for _ in 0..11 {
        assert_eq!(sign_in_without_tenant(&client, PASSWORD).await.expect("signs in"), "a");
    }
    assert_eq!(sign_in_without_tenant(&client, OTHER_PASSWORD).await.expect("signs in"), "b");
}

/// N15: a user with one account of the address cannot guess the password of another account of the
/// address from many networks without limit.
#[tokio::test]
async fn guesses_without_a_tenant_are_limited_for_an_account_over_all_networks() {
    let app = server_with_mode("any").await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    create_account(&a, PASSWORD).await;
    create_account(&b, OTHER_PASSWORD).await;
    let known_network = client_from(&app, &new_network_address());
    assert_eq!(sign_in_without_tenant(&known_network, PASSWORD).await.expect("signs in"), "a");
    // 100 guesses from ten networks reach the limit of an account.
    for _ in 0..10 {
        let client = client_from(&app, &new_network_address());
        for _ in 0..10 {
            assert_eq!(
                sign_in_without_tenant(&client, OTHER_PASSWORD).await.expect("signs in"),
                "b"
            );
        }
    }
    assert_sign_in_refused(
        sign_in_without_tenant(&client_from(&app, &new_network_address()), PASSWORD).await,
    );
    assert!(
        sign_in_with_tenant(&client_from(&app, &new_network_address()), "a", EMAIL, PASSWORD)
            .await
            .is_none()
    );
    assert_eq!(
        sign_in_without_tenant(&known_network, PASSWORD)
            .await
            .expect("signs in from a known network"),
        "a"
    );
}

/// The failure is recorded in the trail of each tenant whose account was tried. Without a
/// matching account, the failure is recorded under the nil tenant.
#[tokio::test]
async fn a_failure_is_recorded_for_every_account_that_was_tried() {
    let app = server_with_mode("any").await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    create_account(&a, PASSWORD).await;
    create_account(&b, PASSWORD).await;
    assert_sign_in_refused(sign_in_without_tenant(&app.anonymous(), "not this one").await);
    for tenant in [&a, &b] {
        assert_eq!(app.audit_event_count(&tenant.tenant_id, "sign_in_failed").await, 1);
    }
    let reply = app.anonymous().auth().login(login_request("nobody@both.test", PASSWORD)).await;
    assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
    let nil = uuid::Uuid::nil().to_string();
    assert_eq!(app.audit_event_count(&nil, "sign_in_failed").await, 1);
}

/// N15: a tenant's audit trail does not show that the owner of an address signs in to another
/// tenant.
#[tokio::test]
async fn the_trail_does_not_show_sign_ins_to_another_tenant() {
    let app = server_with_mode("any").await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    create_account(&a, PASSWORD).await;
    create_account(&b, OTHER_PASSWORD).await;
    let client = client_from(&app, &new_network_address());
    // More sign-ins than the ten guesses that one network may make at an account.
    for _ in 0..13 {
        assert_eq!(sign_in_without_tenant(&client, OTHER_PASSWORD).await.expect("signs in"), "b");
    }
    // The counts of refusals are written at the latest when the server stops.
    let database = app.database.clone();
    app.stop().await;
    let app = TestApp::on_database(&database, |_| {}).await;
    for kind in ["call_limited", "sign_in_failed"] {
        assert_eq!(app.audit_event_count(&a.tenant_id, kind).await, 0, "{kind}");
    }
}
