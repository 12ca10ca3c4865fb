//! A key lets its creator act as the account, so the key expires with the creator's rights.

use tenantry::{
    clock,
    proto::v1::{CreateApiKeyRequest, CreateApiKeyResponse, RoleLevel},
};
use time::Duration;
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, assert_refused};

async fn create(
    client: &Client,
    account: &str,
    days: Option<i64>,
) -> Result<Response<CreateApiKeyResponse>, Status> {
    let request = CreateApiKeyRequest {
        service_account_id: account.into(),
        expire_time: days.map(|days| clock::timestamp(clock::now() + Duration::days(days))),
        ..CreateApiKeyRequest::default()
    };
    client.service_accounts().create_api_key(request).await
}

/// The expiry of a created key, in Unix seconds.
fn expiry(response: Response<CreateApiKeyResponse>) -> i64 {
    response.into_inner().api_key.expect("a key").expire_time.expect("an expiry").seconds
}

/// N11: also the permission `api_key:create` does not allow this.
#[tokio::test]
async fn a_service_account_cannot_create_a_key_for_itself() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let account = acme.create_service_account("maker", &["api_key:create"]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let account_client = app.anonymous().exchange(&secret).await;
    assert_refused(
        create(&account_client, &account, None).await,
        Code::PermissionDenied,
        "OWN_API_KEY",
    );
}

/// N11: a service account cannot use a second account to extend its own expiry.
#[tokio::test]
async fn a_key_that_a_service_account_creates_expires_with_the_accounts_own_key() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let maker = acme.create_service_account("maker", &["api_key:create"]).await;
    let other = acme.create_service_account("other", &[]).await;
    acme.assign(&other, &acme.role_id("maker").await).await;
    let first_key = create(&acme, &maker, Some(2)).await.expect("a key").into_inner();
    let first_expiry = first_key.api_key.expect("a key").expire_time.expect("an expiry").seconds;
    let account_client = app.anonymous().exchange(&first_key.secret).await;

    let refusal = create(&account_client, &other, Some(3)).await;
    assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
    assert!(
        expiry(create(&account_client, &other, Some(1)).await.expect("an earlier expiry"))
            < first_expiry
    );
    assert_eq!(
        expiry(create(&account_client, &other, None).await.expect("the latest possible expiry")),
        first_expiry
    );
}

/// N11: the limit applies even to the key of an account without roles.
#[tokio::test]
async fn a_key_expires_no_later_than_its_creators_rights() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;
    let user = acme.create_user_without_password("temporary@acme.test").await;
    acme.assign_for_an_hour(&user, &acme.system_role("org_admin").await).await;
    let temporary = app.create_session(&user, &acme).await;
    let in_an_hour = clock::now().unix_timestamp() + 3600;
    // The limit also applies to an account without roles.
    for (name, permissions) in [("empty", &[][..]), ("sending", &["invoice:send"][..])] {
        let account = acme.create_service_account(name, permissions).await;
        let refusal = create(&temporary, &account, Some(1)).await;
        assert_refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
        assert!(expiry(create(&temporary, &account, None).await.expect("a key")) <= in_an_hour);
    }
    // A grant of the account that expires before the creator's grant sets no limit.
    let key_creator = acme.create_role("key creator", RoleLevel::Member, &["api_key:create"]).await;
    let sender = acme.create_role("sender", RoleLevel::Member, &["invoice:send"]).await;
    let user = acme.create_user_without_password("maker@acme.test").await;
    acme.assign(&user, &key_creator).await;
    acme.assign_for_an_hour(&user, &sender).await;
    let brief = acme.create_service_account("brief", &[]).await;
    acme.assign_for_an_hour(&brief, &sender).await;
    let shorten = "update role_assignments set expires_at = expires_at - interval '1 minute'
                  where user_id = $1::uuid";
    let mut owner_connection = app.owner_connection().await;
    sqlx::query(shorten)
        .bind(&brief)
        .execute(&mut owner_connection)
        .await
        .expect("the expiry is moved");
    let maker = app.create_session(&user, &acme).await;
    assert!(expiry(create(&maker, &brief, Some(30)).await.expect("a key")) > in_an_hour);
}
