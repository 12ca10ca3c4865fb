//! A key lets its creator act as the account, so the key expires with the creator's rights.

use tenantry::{
    clock,
    proto::v1::{CreateApiKeyRequest, CreateApiKeyResponse, RoleLevel},
};
use time::Duration;
use tonic::{Code, Response, Status};

use crate::harness::{Client, TestApp, refused};

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

fn ends(made: Response<CreateApiKeyResponse>) -> i64 {
    made.into_inner().api_key.expect("a key").expire_time.expect("an end").seconds
}

/// N11: the same with and without the permission `api_key:create`.
#[tokio::test]
async fn a_service_account_cannot_create_a_key_for_itself() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let account = acme.create_service_account("maker", &["api_key:create"]).await;
    let secret = acme.create_api_key(&account).await.secret;
    let itself = app.anonymous().exchange(&secret).await;
    refused(create(&itself, &account, None).await, Code::PermissionDenied, "OWN_API_KEY");
}

/// N11: a service account cannot use a second account to extend its own expiry.
#[tokio::test]
async fn a_key_created_with_a_key_ends_with_it() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let maker = acme.create_service_account("maker", &["api_key:create"]).await;
    let other = acme.create_service_account("other", &[]).await;
    acme.assign(&other, &acme.role_named("maker").await).await;
    let first = create(&acme, &maker, Some(2)).await.expect("a key").into_inner();
    let end = first.api_key.expect("a key").expire_time.expect("an end").seconds;
    let itself = app.anonymous().exchange(&first.secret).await;

    let refusal = create(&itself, &other, Some(3)).await;
    refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
    assert!(ends(create(&itself, &other, Some(1)).await.expect("sooner")) < end);
    assert_eq!(
        ends(create(&itself, &other, None).await.expect("with the latest possible end")),
        end
    );
}

/// N11: a caller cannot give or use more rights than it has.
#[tokio::test]
async fn a_key_ends_no_later_than_its_creators_rights() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;
    let user = acme.create_user_without_password("temporary@acme.test").await;
    acme.assign_for_an_hour(&user, &acme.system_role("org_admin").await).await;
    let temporary = app.sign_in_as(&user, &acme).await;
    let in_an_hour = clock::now().unix_timestamp() + 3600;
    // The limit also holds for an account without roles.
    for (name, permissions) in [("empty", &[][..]), ("sends", &["invoice:send"][..])] {
        let account = acme.create_service_account(name, permissions).await;
        let refusal = create(&temporary, &account, Some(1)).await;
        refused(refusal, Code::PermissionDenied, "GRANT_OUTLASTS_GIVER");
        assert!(ends(create(&temporary, &account, None).await.expect("a key")) <= in_an_hour);
    }
    // A grant of the account that expires before the creator's grant sets no limit.
    let may_make = acme.create_role("makes", RoleLevel::Member, &["api_key:create"]).await;
    let sends = acme.create_role("sends on", RoleLevel::Member, &["invoice:send"]).await;
    let user = acme.create_user_without_password("maker@acme.test").await;
    acme.assign(&user, &may_make).await;
    acme.assign_for_an_hour(&user, &sends).await;
    let brief = acme.create_service_account("brief", &[]).await;
    acme.assign_for_an_hour(&brief, &sends).await;
    let sooner = "update role_assignments set expires_at = expires_at - interval '1 minute'
                  where user_id = $1::uuid";
    let mut owner = app.owner().await;
    sqlx::query(sooner).bind(&brief).execute(&mut owner).await.expect("moved");
    let maker = app.sign_in_as(&user, &acme).await;
    assert!(ends(create(&maker, &brief, Some(30)).await.expect("a key")) > in_an_hour);
}
