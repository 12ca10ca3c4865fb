//! `tenantry restored`: a restore to an earlier time undoes revocations. The command repeats or
//! lists these revocations.

use std::fs;

use sqlx::AssertSqlSafe;
use tenantry::proto::v1::{
    CheckRequest, DeleteUserRequest, ExchangeApiKeyRequest, LogoutRequest, RefreshRequest,
    WatchEventsRequest, WatchEventsResponse, WatchPermissionsRequest, WhoAmIRequest,
    exchange_api_key_request::Credential,
};
use tonic::{Code, Response, Status};

use super::{CommandOutput, run};
use crate::{
    harness::{Client, Cluster, PASSWORD, TestApp, assert_refused, wait_until, within_seconds},
    postgres::dump::{program, run_program},
};

/// Runs `tenantry restored` for a database, as the schema's owner.
async fn run_restored(app: &TestApp, database: &str, arguments: &[&str]) -> CommandOutput {
    let (url, master_key) = (Cluster::get().owner_url(database), app.master_key());
    let settings = [("MIGRATE_DATABASE_URL", url.as_str()), ("MASTER_KEY_PATH", &master_key)];
    run(&[&["restored"], arguments].concat(), &settings).await
}

/// Dumps the database with a role like the one in docs/backup.md, and restores the dump into a new
/// database. `meanwhile` runs between the dump and the restore. Returns the name of the new
/// database.
async fn dump_and_restore(app: &TestApp, meanwhile: impl Future<Output = ()>) -> String {
    let mut owner_connection = app.owner_connection().await;
    let role = format!("backup_of_{}", app.database);
    let create = format!("create role {role} login bypassrls; grant pg_read_all_data to {role}");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut owner_connection).await.expect("a role");
    let url = app.owner_url().replace("postgres@", &format!("{role}@"));
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("dump").display().to_string();
    let pg_dump = program(app, "pg_dump").await;
    let dump = run_program(pg_dump, &["--format=custom", "--file", &file, "-d", &url]).await;
    assert!(dump.status.success(), "{dump:?}");
    let rows = row_counts(&app.database).await;
    meanwhile.await;

    let database = format!("{}_past", app.database);
    Cluster::get().empty_database(&database).await;
    let url = Cluster::get().owner_url(&database);
    let pg_restore = program(app, "pg_restore").await;
    let load = run_program(pg_restore, &["--exit-on-error", "-d", &url, &file]).await;
    assert!(load.status.success(), "{load:?}");
    assert_eq!(row_counts(&database).await, rows, "the dump has the rows of all tenants");
    database
}

/// The number of rows of each table that only calls change.
async fn row_counts(database: &str) -> Vec<i64> {
    let mut owner_connection = Cluster::get().connect_owner(database).await;
    let mut counts = Vec::new();
    for table in ["tenants", "users", "sessions", "role_assignments", "audit_events", "api_keys"] {
        let query = format!("select count(*) from {table}");
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(query))
            .fetch_one(&mut owner_connection)
            .await
            .expect("a count");
        assert!(count > 0, "{table}");
        counts.push(count);
    }
    counts
}

async fn check_with(client: &Client, token: &str) -> Result<Response<()>, Status> {
    let request = CheckRequest {
        permission: "doc:read".into(),
        consistency_token: token.into(),
        ..CheckRequest::default()
    };
    client.permissions().check(request).await.map(|reply| reply.map(|_| ()))
}

async fn refresh(app: &TestApp, client: &Client) -> Result<Response<()>, Status> {
    let refresh_token = client.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, ..RefreshRequest::default() };
    app.anonymous().auth().refresh(request).await.map(|reply| reply.map(|_| ()))
}

async fn export_trails(app: &TestApp) -> CommandOutput {
    let url = Cluster::get().app_url(&app.database);
    run(&["audit", "export"], &[("DATABASE_URL", &url)]).await
}

/// N39: a restore to an earlier time revives sessions, keys and rights. The command ends the
/// sessions and keys, refuses the tokens of the lost time, and lists the rights.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_the_command_repeats_or_lists_lost_revocations() {
    let app = TestApp::spawn().await;
    let platform_admin = app.platform_admin().await;
    let acme = app.create_tenant("acme").await;
    let signed_out_client = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    let unassigned_user = acme.create_member("fired", &["doc:read"]).await;
    let deleted_user = acme.create_member("deleted", &[]).await;
    let account = acme.create_service_account("robot", &[]).await;
    let key = acme.create_api_key(&account).await;
    app.wait_until_audit_settled().await;

    let files = tempfile::tempdir().expect("a directory");
    let export_file = files.path().join("trail.jsonl");
    let (mut lost_token, mut lost_position) = (String::new(), WatchEventsResponse::default());
    let meanwhile = Box::pin(async {
        signed_out_client.auth().logout(LogoutRequest::default()).await.expect("signs out");
        acme.unassign(&unassigned_user.user_id, &acme.role_id("fired").await).await;
        acme.revoke_api_key(&key.api_key.as_ref().expect("a key").id).await;
        let delete =
            DeleteUserRequest { user_id: deleted_user.user_id.clone(), ..Default::default() };
        let reply = acme.users().delete_user(delete).await.expect("deleted");
        lost_token = reply.into_inner().consistency_token;
        app.wait_until_audit_settled().await;
        let stream = acme.audit().watch_events(WatchEventsRequest::default()).await;
        let first_message = stream.expect("a stream").into_inner().message().await;
        lost_position = first_message.expect("a message").expect("a message");
        fs::write(&export_file, export_trails(&app).await.out).expect("written");
    });
    let database = dump_and_restore(&app, meanwhile).await;
    check_with(&acme, &lost_token).await.expect("valid before the restore");
    app.stop().await;

    let file = export_file.display().to_string();
    let restored_values = TestApp::values(&database);
    let master_key = restored_values.get("MASTER_KEY_PATH").expect("it is set").to_owned();
    let url = Cluster::get().owner_url(&database);
    let settings = [("MIGRATE_DATABASE_URL", url.as_str()), ("MASTER_KEY_PATH", &master_key)];
    let output = run(&["restored", "--audit-export", &file], &settings).await;
    assert!(output.ok, "{output:?}");
    // The session of the platform's administrator, two sessions of acme's administrator, and one
    // session of each member.
    for text in ["5 sessions of 2 tenants ended", "1 API keys ended"] {
        assert!(output.out.contains(text), "{text}: {output:?}");
    }
    let fired_id = &unassigned_user.user_id;
    let lines = [
        format!("{}  role_unassigned  {fired_id}  remove the assignments again", acme.tenant_id),
        format!(
            "{}  user_deleted  {}  delete the user again",
            acme.tenant_id, deleted_user.user_id
        ),
    ];
    for line in &lines {
        assert!(output.out.contains(line), "{line}: {output:?}");
    }
    assert!(output.out.contains("2 of them took something"), "{output:?}");

    // The streams in Redis have higher positions than the restored trails, so they accept no new
    // events. This server sends no events to Redis.
    let app =
        TestApp::on_database(&database, |values| values.set("AUDIT_STREAM_LENGTH", "0")).await;
    for client in [&signed_out_client, &unassigned_user, &deleted_user, &acme, &platform_admin] {
        let client = client.on_server(&app.channel);
        let reply = client.auth().who_am_i(WhoAmIRequest {}).await;
        assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
        assert_refused(refresh(&app, &client).await, Code::Unauthenticated, "TOKEN_INVALID");
    }
    let credential = Some(Credential::ApiKey(key.secret));
    let exchange = ExchangeApiKeyRequest { credential, ..Default::default() };
    let reply = app.anonymous().auth().exchange_api_key(exchange).await;
    assert_eq!(reply.expect_err("the key ended").code(), Code::Unauthenticated);

    let acme = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    let reply = check_with(&acme, &lost_token).await;
    assert_refused(reply, Code::FailedPrecondition, "TOKEN_OF_LOST_DATA");
    let request = WatchPermissionsRequest { consistency_token: lost_token };
    let mut stream =
        acme.permissions().watch_permissions(request).await.expect("a stream").into_inner();
    let first_message = stream.message().await.expect("a message").expect("a message");
    assert!(first_message.all_subjects);
    check_with(&acme, &first_message.consistency_token).await.expect("a token of the new epoch");

    let request = WatchEventsRequest {
        after_position: Some(lost_position.position),
        after_hash: lost_position.hash,
    };
    app.wait_until_audit_settled().await;
    let reply = acme.audit().watch_events(request).await;
    assert_refused(reply, Code::FailedPrecondition, "POSITION_OF_LOST_DATA");
    for tenant in [&acme.tenant_id, &platform_admin.tenant_id] {
        assert_eq!(app.audit_event_count(tenant, "deployment_restored").await, 1);
    }
    let url = Cluster::get().app_url(&database);
    let output = run(&["audit", "verify"], &[("DATABASE_URL", &url)]).await;
    assert!(output.ok, "{output:?}");
}

/// N39: a replica that runs during the command drops its cached data, in memory and in Redis. The
/// command can be repeated. API keys can be kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_replica_drops_its_cached_data() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &["doc:read"]).await;
    let account = acme.create_service_account("robot", &[]).await;
    let key = acme.create_api_key(&account).await;
    let mut old_tokens = Vec::new();
    for epoch in 0..2 {
        let acme = app.anonymous().login("acme", &acme.email, PASSWORD).await;
        let ada = app.anonymous().login("acme", &ada.email, PASSWORD).await;
        assert!(acme.user_may(&ada.user_id, "doc:read").await, "the cache is filled");
        let mut stream = acme
            .permissions()
            .watch_permissions(WatchPermissionsRequest::default())
            .await
            .expect("a stream")
            .into_inner();
        let first_message = stream.message().await.expect("a message").expect("a message");
        check_with(&ada, &first_message.consistency_token).await.expect("a token of this epoch");
        old_tokens.push(first_message.consistency_token);

        let output = run_restored(&app, &app.database, &["--keep-api-keys"]).await;
        assert!(output.ok && output.out.contains("API keys are kept"), "{epoch}: {output:?}");
        assert!(output.err.contains("stop all replicas"), "{output:?}");
        for client in [&acme, &ada] {
            wait_until(5, || async {
                let reply = client.auth().who_am_i(WhoAmIRequest {}).await;
                reply.is_err_and(|status| status.code() == Code::Unauthenticated)
            })
            .await;
        }
        let has_expected_end = within_seconds(10, async {
            loop {
                match stream.message().await {
                    Ok(Some(message)) if message.all_subjects => break true,
                    Ok(Some(_)) => {}
                    // The stream may end first, because the session of its caller ended.
                    Err(status) => break status.code() == Code::Unauthenticated,
                    Ok(None) => break false,
                }
            }
        });
        assert!(has_expected_end.await);
    }
    let acme = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    for token in &old_tokens {
        let reply = check_with(&acme, token).await;
        assert_refused(reply, Code::FailedPrecondition, "TOKEN_OF_LOST_DATA");
    }
    app.anonymous().exchange(&key.secret).await;
}

/// N39: when the configured keys cannot decrypt the data of the database, the command changes
/// nothing. The error contains the file and the key.
#[tokio::test]
async fn the_error_contains_the_keys_that_cannot_decrypt_the_data() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let owner_url = app.owner_url();
    let mut owner_connection = app.owner_connection().await;
    let dir = tempfile::tempdir().expect("a directory");
    let other_key = dir.path().join("master.keys").display().to_string();
    let output = run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &other_key)]).await;
    assert!(output.ok, "{output:?}");
    let settings = [("MIGRATE_DATABASE_URL", owner_url.as_str()), ("MASTER_KEY_PATH", &other_key)];
    let output = run(&["restored"], &settings).await;
    assert!(!output.ok && output.err.contains("nothing was changed"), "{output:?}");
    // The common data key, and the data key of acme.
    let text = format!("MASTER_KEY_PATH ({other_key}) does not unwrap 2 data keys");
    assert!(output.err.contains(&text), "{output:?}");

    // `b2xk` is the pepper id `old` as base64.
    sqlx::query(
        "update credentials set password_hash = replace(password_hash, ',p=1', ',p=1,keyid=b2xk')",
    )
    .execute(&mut owner_connection)
    .await
    .expect("updated");
    let output = run_restored(&app, &app.database, &[]).await;
    let text = "PASSWORD_PEPPER_PATH (off) lacks the pepper old, which 1 passwords need";
    assert!(!output.ok && output.err.contains(text), "{output:?}");
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("nothing was changed");

    let output = run_restored(&app, &app.database, &["--accept-lost-keys"]).await;
    assert!(output.ok && output.err.contains(text), "{output:?}");
    assert!(output.out.contains("1 sessions of 1 tenants ended"), "{output:?}");
}
