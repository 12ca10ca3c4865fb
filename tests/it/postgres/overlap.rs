//! I09: the schema of the next release is applied while this release serves calls.

use sqlx::{AssertSqlSafe, PgConnection, error::DatabaseError};
use tenantry::proto::v1::{
    CheckRequest, ListUsersRequest, RefreshRequest, RoleLevel, UpdateUserRequest, WhoAmIRequest,
};

use super::tenant_tables;
use crate::harness::{Client, PASSWORD, TestApp, mask};

/// Makes typical calls. All of them must succeed.
async fn make_calls(acme: &Client, name: &str) {
    let anonymous = Client::anonymous(acme.channel.clone());
    let member = acme.create_member(name, &["doc:read"]).await;
    let request = RefreshRequest {
        refresh_token: member.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let refreshed = member.auth().refresh(request).await.expect("refreshes").into_inner();
    let member = member.with_token(&refreshed.access_token);
    member.auth().who_am_i(WhoAmIRequest {}).await.expect("the token is valid");
    let check_request = |user: &str| CheckRequest {
        user_id: user.into(),
        permission: "doc:read".into(),
        explain: true,
        ..CheckRequest::default()
    };
    assert!(acme.decide(check_request(&member.user_id)).await.allowed);
    let update = UpdateUserRequest {
        user_id: member.user_id.clone(),
        display_name: Some(name.into()),
        update_mask: mask(&["display_name"]),
        ..UpdateUserRequest::default()
    };
    acme.users().update_user(update).await.expect("updated");
    acme.users().list_users(ListUsersRequest::default()).await.expect("users");
    let account = acme.create_service_account(name, &[]).await;
    let key = acme.create_api_key(&account).await;
    anonymous.exchange(&key.secret).await;
    let role = acme.create_role(&format!("{name}-more"), RoleLevel::Member, &[]).await;
    acme.assign(&member.user_id, &role).await;
    acme.unassign(&member.user_id, &role).await;
    anonymous.login(&acme.slug, &acme.email, PASSWORD).await;
}

/// Applies an expand migration (migrations/README.md): new columns and indexes, with a short
/// lock timeout. The migration may have to be repeated, but no call may fail.
async fn expand(owner_connection: &mut PgConnection, table: &str) {
    let statement = format!(
        "set lock_timeout = '200ms';
         alter table {table} add column of_a_next_release text default 'x';
         create index on {table} (tenant_id, of_a_next_release)"
    );
    for _ in 0..50 {
        match sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut *owner_connection).await
        {
            Ok(_) => return,
            Err(error) => {
                let code = error.as_database_error().and_then(DatabaseError::code);
                assert_eq!(code.as_deref(), Some("55P03"), "{table}: {error}");
            }
        }
    }
    panic!("no lock on {table} in 50 attempts");
}

/// No call fails with "cached plan must not change result type", although its statements were
/// prepared before the change.
#[tokio::test(flavor = "multi_thread")]
async fn no_call_fails_while_the_schema_is_extended() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    make_calls(&acme, "before").await;
    let mut owner_connection = app.owner_connection().await;
    let tables = tenant_tables(&mut owner_connection).await;
    assert!(tables.len() > 10, "{tables:?}");
    let extend_schema = async {
        for table in &tables {
            expand(&mut owner_connection, table).await;
        }
    };
    let call_server = async {
        for n in 0..5 {
            make_calls(&acme, &format!("while-{n}")).await;
        }
    };
    tokio::join!(extend_schema, call_server);
    make_calls(&acme, "after").await;
}
