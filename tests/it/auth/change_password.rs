//! AuthService.ChangePassword

use tenantry::proto::v1::{
    ChangePasswordRequest, ChangePasswordResponse, DisableUserRequest, EnableUserRequest,
    LoginRequest, RefreshRequest, RevokeAllSessionsRequest, WhoAmIRequest,
};
use tonic::{Code, Response, Status};

use crate::harness::{Client, Fault, PASSWORD, Proxy, TestApp, assert_refused};

const NEW_PASSWORD: &str = "a password that is new";

async fn change_password(
    client: &Client,
    current: &str,
    new: &str,
) -> Result<Response<ChangePasswordResponse>, Status> {
    let request =
        ChangePasswordRequest { current_password: current.into(), new_password: new.into() };
    client.auth().change_password(request).await
}

async fn can_sign_in(client: &Client, password: &str) -> bool {
    let request = LoginRequest {
        email: client.email.clone(),
        password: password.into(),
        organization_slug: client.slug.clone(),
        ..LoginRequest::default()
    };
    client.with_token("").auth().login(request).await.is_ok()
}

async fn stored_hash(app: &TestApp, user: &str) -> String {
    sqlx::query_scalar("select password_hash from credentials where user_id = $1::uuid")
        .bind(user)
        .fetch_one(&mut app.owner_connection().await)
        .await
        .expect("a hash")
}

/// B09: a new password takes effect on every replica and ends the user's other sessions.
#[tokio::test]
async fn a_new_password_applies_on_every_replica_and_ends_other_sessions() {
    let app = TestApp::spawn().await;
    let replica = TestApp::on_database(&app.database, |_| {}).await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let other_session = app.anonymous().login("acme", &ada.email, PASSWORD).await;

    change_password(&ada, PASSWORD, NEW_PASSWORD).await.expect("changed");
    for server in [&app.channel, &replica.channel] {
        assert!(!can_sign_in(&ada.on_server(server), PASSWORD).await);
        assert!(can_sign_in(&ada.on_server(server), NEW_PASSWORD).await);
    }
    let reply = other_session.auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let refresh_token = other_session.tokens.refresh_token;
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    let refresh = app.anonymous().auth().refresh(request).await;
    assert_eq!(refresh.expect_err("refused").code(), Code::Unauthenticated);

    ada.auth().who_am_i(WhoAmIRequest {}).await.expect("the session of the change continues");
    let refresh_token = ada.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    app.anonymous()
        .auth()
        .refresh(request)
        .await
        .expect("the session of the change can be refreshed");
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("the sessions of other users continue");
}

/// B09: without the current password, the stored hash stays the same.
#[tokio::test]
async fn a_wrong_current_password_changes_nothing() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let hash_before = stored_hash(&app, &ada.user_id).await;

    for wrong in ["wrong", NEW_PASSWORD, &PASSWORD[1..]] {
        let result = change_password(&ada, wrong, NEW_PASSWORD).await;
        assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    assert_eq!(stored_hash(&app, &ada.user_id).await, hash_before);
    assert_eq!(app.audit_events("password_change_failed").await.len(), 3);
    assert!(can_sign_in(&ada, PASSWORD).await);
}

#[tokio::test]
async fn a_new_password_must_follow_the_rules_of_register() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;

    // A password has at least 8 characters and at most 1024 bytes.
    for invalid in ["", "short", &"x".repeat(1025)] {
        let result = change_password(&ada, PASSWORD, invalid).await;
        assert_refused(result, Code::InvalidArgument, "INVALID_FIELDS");
    }
    // The user's email, the tenant's slug twice, the tenant's name, and a common password.
    for common in [&ada.email, "acmeacme", "THE ACME company", "football"] {
        let result = change_password(&ada, PASSWORD, common).await;
        assert_refused(result, Code::InvalidArgument, "PASSWORD_TOO_COMMON");
    }
    assert!(can_sign_in(&ada, PASSWORD).await);
}

#[tokio::test]
async fn a_user_without_a_password_cannot_change_the_password() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let user = acme.create_user_without_password("ada@acme.test").await;
    let ada = app.create_session(&user, &acme).await;

    for current in [PASSWORD, "x"] {
        let result = change_password(&ada, current, NEW_PASSWORD).await;
        assert_refused(result, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
}

#[tokio::test]
async fn of_two_concurrent_password_changes_exactly_one_succeeds() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    let (first_reply, second_reply) = tokio::join!(
        change_password(&acme, PASSWORD, "the first new"),
        change_password(&acme, PASSWORD, "the second")
    );
    assert!(first_reply.is_ok() != second_reply.is_ok(), "{first_reply:?} {second_reply:?}");
    assert_eq!(can_sign_in(&acme, "the first new").await, first_reply.is_ok());
    assert_eq!(can_sign_in(&acme, "the second").await, second_reply.is_ok());
}

/// N07: the user and the session are checked again when the password is stored.
#[tokio::test]
async fn a_change_is_refused_when_the_user_is_disabled_or_signed_out_meanwhile() {
    for disables_user in [true, false] {
        let direct = TestApp::spawn().await;
        let acme = direct.create_tenant("acme").await;
        let ada = acme.create_member("ada", &[]).await;
        let proxy = Proxy::postgres().await;
        let url = proxy.postgres_url(&direct.database);
        let app =
            TestApp::on_database(&direct.database, |values| values.set("DATABASE_URL", url)).await;
        // Holds the statement that locks the user's row, until `pass`.
        proxy.fault_when_sent("for no key update", Fault::Hold);
        let replica_client = ada.on_server(&app.channel);
        let held_call =
            tokio::spawn(
                async move { change_password(&replica_client, PASSWORD, NEW_PASSWORD).await },
            );
        proxy.wait_until_held().await;
        let user_id = ada.user_id.clone();
        if disables_user {
            acme.users().disable_user(DisableUserRequest { user_id }).await.expect("disabled");
        } else {
            let request = RevokeAllSessionsRequest { user_id };
            acme.sessions().revoke_all_sessions(request).await.expect("revoked");
        }
        proxy.pass();
        let reply = held_call.await.expect("the call does not panic");
        assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
        if disables_user {
            let user_id = ada.user_id.clone();
            acme.users().enable_user(EnableUserRequest { user_id }).await.expect("enabled");
        }
        assert!(can_sign_in(&ada, PASSWORD).await);
    }
}
