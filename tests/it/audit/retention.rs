//! The retention of the audit trail: deleted events, checkpoints, and reads of trimmed trails.

use std::{collections::HashMap, path::Path};

use serde_json::Value;
use sqlx::AssertSqlSafe;
use tempfile::TempDir;
use tenantry::{
    config::Values,
    proto::v1::{RoleLevel, WatchEventsRequest, WatchEventsResponse},
    tokens::pem::{self, KeyAlgorithm},
};
use tonic::{Code, Status, Streaming};
use tonic_types::StatusExt;

use super::events_oldest_first;
use crate::{
    commands::{CommandOutput, run},
    harness::{
        Client, Cluster, KeyService, TestApp, assert_refused, redis, wait_until, within_seconds,
    },
};

/// Events of a new tenant: `tenant_created`, `user_registered` and `signed_in`.
const INITIAL_EVENTS: i64 = 3;

fn without_streams(values: &mut Values) {
    values.set("AUDIT_STREAM_LENGTH", "0");
}

fn with_retention(values: &mut Values) {
    values.set("AUDIT_RETENTION", "35d");
    without_streams(values);
}

/// Makes the events of a tenant older. The sealer seals them again, because their hashes cover the
/// times of the events.
async fn make_older(app: &TestApp, tenant: &str, days: u32) {
    let sql = "
        update audit_events set created_at = created_at - interval '$days days'
            where tenant_id = '$tenant';
        delete from audit_chain where tenant_id = '$tenant';
        insert into audit_queue select tenant_id, event_id from audit_events
            where tenant_id = '$tenant'";
    execute(app, &sql.replace("$tenant", tenant).replace("$days", &days.to_string())).await;
    app.wait_until_audit_settled().await;
}

async fn execute(app: &TestApp, sql: &str) {
    let sql = AssertSqlSafe(sql.to_owned());
    sqlx::raw_sql(sql).execute(&mut app.owner_connection().await).await.expect("executed");
}

async fn event_count(app: &TestApp, tenant: &str) -> i64 {
    app.count("select count(*) from audit_events where tenant_id = $1", tenant).await
}

/// Starts a replica that trims trails, and waits until a tenant has this number of events.
async fn trim_to(app: &TestApp, tenant: &str, expected_count: i64) -> TestApp {
    let replica = TestApp::on_database(&app.database, with_retention).await;
    wait_until(30, || async { event_count(app, tenant).await == expected_count }).await;
    replica
}

/// Waits until a replica has made a pass through all trails.
async fn wait_for_pass(replica: &TestApp) {
    let last_pass = "tenantry_trim_last_pass_timestamp_seconds{table=\"audit_events\"}";
    wait_until(30, || async { replica.metric(last_pass).await > Some(0.0) }).await;
}

/// Runs `tenantry audit` with these arguments and the settings of a test server.
async fn run_audit(app: &TestApp, arguments: &[&str]) -> CommandOutput {
    run_audit_with(app, &TestApp::values(&app.database), arguments).await
}

/// Like [`run_audit`], with other settings.
async fn run_audit_with(app: &TestApp, values: &Values, arguments: &[&str]) -> CommandOutput {
    let names = [
        "DATABASE_URL",
        "JWT_ACCESS_PRIVATE_KEY_PATH",
        "JWT_ACCESS_PUBLIC_KEY_PATH",
        "JWT_REFRESH_PRIVATE_KEY_PATH",
        "JWT_REFRESH_PUBLIC_KEY_PATH",
    ];
    let settings: Vec<_> =
        names.iter().filter_map(|name| Some((*name, values.get(name)?))).collect();
    assert!(values.get("DATABASE_URL").is_some_and(|url| url.contains(&app.database)));
    run(&[&["audit"], arguments].concat(), &settings).await
}

fn parse_lines(output: &CommandOutput) -> Vec<Value> {
    output.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The faults that `audit verify` finds in a trail.
async fn faults(app: &TestApp, tenant: &str) -> String {
    let output = run_audit(app, &["verify", "--tenant", tenant]).await;
    let faults = parse_lines(&output)[0]["faults"].clone();
    assert_eq!(output.ok, faults == serde_json::json!([]), "{output:?}");
    faults.to_string()
}

async fn open_stream(
    client: &Client,
    position: i64,
) -> Result<Streaming<WatchEventsResponse>, Status> {
    let request = WatchEventsRequest { after_position: Some(position), ..Default::default() };
    client.audit().watch_events(request).await.map(tonic::Response::into_inner)
}

async fn next_message(stream: &mut Streaming<WatchEventsResponse>) -> WatchEventsResponse {
    within_seconds(12, stream.message()).await.expect("the stream did not fail").expect("a message")
}

async fn create_roles(client: &Client, names: &[&str]) {
    for name in names {
        client.create_role(name, RoleLevel::Member, &[]).await;
    }
}

/// N32: exactly the events that are older than the retention are deleted.
/// K12: the rest of the trail can be verified.
#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_events_are_deleted_and_the_rest_is_verified() {
    let app = TestApp::with_settings(without_streams).await;
    let (acme, other) = (app.create_tenant("acme").await, app.create_tenant("other").await);
    create_roles(&acme, &["one", "two", "three"]).await;
    app.wait_until_audit_settled().await;
    // The retention is 35 days, so only the events of acme are old enough.
    make_older(&app, &acme.tenant_id, 36).await;
    make_older(&app, &other.tenant_id, 34).await;
    create_roles(&acme, &["four", "five"]).await;
    app.wait_until_audit_settled().await;
    let verified_before =
        parse_lines(&run_audit(&app, &["verify", "--tenant", "acme"]).await).remove(0);

    let replica = trim_to(&app, &acme.tenant_id, 2).await;
    wait_for_pass(&replica).await;
    assert_eq!(event_count(&app, &other.tenant_id).await, INITIAL_EVENTS);
    let trimmed = "tenantry_trimmed_rows_total{table=\"audit_events\"}";
    // The three events of a new tenant, and three roles.
    assert_eq!(replica.metric(trimmed).await, Some(6.0));
    // The age of the oldest event before the pass, which deleted this event.
    let oldest = replica.metric("tenantry_audit_oldest_seconds").await.expect("a metric");
    assert!(oldest >= 36.0 * 86_400.0, "{oldest}");
    assert_eq!(replica.metric("tenantry_audit_trails_refused").await, Some(0.0));
    create_roles(&acme, &["six"]).await;
    app.wait_until_audit_settled().await;
    let positions: Vec<_> =
        events_oldest_first(&acme, "").await.iter().map(|event| event.position).collect();
    assert_eq!(positions, [7, 8, 9]);

    let output = run_audit(&app, &["verify", "--tenant", "acme"]).await;
    assert!(output.ok, "{output:?}");
    let verified = parse_lines(&output).remove(0);
    assert_eq!((&verified["position"], &verified["checkpoint"]), (&9.into(), &6.into()));
    assert_eq!(verified_before["position"], 8);
    // Without the keys, a checkpoint can't be verified.
    let url = Cluster::get().app_url(&app.database);
    let output = run(&["audit", "verify", "--tenant", "acme"], &[("DATABASE_URL", &url)]).await;
    assert!(!output.ok && output.err.contains("--jwks"), "{output:?}");
    let dir = tempfile::tempdir().expect("a folder");
    let jwks = dir.path().join("jwks.json").display().to_string();
    std::fs::write(&jwks, app.get("/.well-known/jwks.json").await.1).expect("written");
    let arguments = ["audit", "verify", "--tenant", "acme", "--jwks", &jwks];
    let output = run(&arguments, &[("DATABASE_URL", &url)]).await;
    assert!(output.ok, "{output:?}");
}

/// N32: a reader of a trimmed trail learns that events were deleted.
#[tokio::test(flavor = "multi_thread")]
async fn readers_start_at_the_oldest_event_and_learn_of_deleted_events() {
    let app = TestApp::with_settings(without_streams).await;
    let acme = app.create_tenant("acme").await;
    create_roles(&acme, &["one"]).await;
    app.wait_until_audit_settled().await;
    make_older(&app, &acme.tenant_id, 36).await;
    create_roles(&acme, &["two"]).await;
    app.wait_until_audit_settled().await;
    let all_lines = parse_lines(&run_audit(&app, &["export", "--tenant", "acme"]).await);
    let _replica = trim_to(&app, &acme.tenant_id, 1).await;

    // The events at positions 1 to 4 were deleted. The checkpoint is at position 4.
    let remaining_lines = parse_lines(&run_audit(&app, &["export", "--tenant", "acme"]).await);
    assert_eq!(remaining_lines.len(), 2);
    assert_eq!(
        (&remaining_lines[0]["position"], &remaining_lines[0]["hash"]),
        (&4.into(), &all_lines[3]["hash"])
    );
    assert!(
        remaining_lines[0]["checkpoint"].as_str().is_some_and(|jwt| jwt.split('.').count() == 3)
    );
    assert_eq!(remaining_lines[1], all_lines[4]);
    let output = run_audit(&app, &["export", "--tenant", "acme", "--after", "3"]).await;
    assert!(!output.ok && output.out.is_empty(), "{output:?}");
    assert!(output.err.contains("--after 4"), "{output:?}");
    let output = run_audit(&app, &["export", "--tenant", "acme", "--after", "4"]).await;
    assert_eq!(parse_lines(&output), remaining_lines[1..]);

    // Position 0 means the start of the trail.
    for position in [0, 4] {
        let mut stream = open_stream(&acme, position).await.expect("a stream");
        let first_message = next_message(&mut stream).await;
        assert_eq!((first_message.event, first_message.position), (None, 4));
        assert_eq!(all_lines[3]["hash"], first_message.hash);
        assert_eq!(next_message(&mut stream).await.position, 5);
    }
    // The next events after these positions were deleted.
    for position in [1, 3] {
        let status = open_stream(&acme, position).await.map(tonic::Response::new);
        let status = assert_refused(status, Code::FailedPrecondition, "POSITION_TRIMMED");
        let details = status.get_error_details();
        let info = details.error_info().expect("an ErrorInfo");
        assert_eq!(info.metadata, HashMap::from([("oldest_position".into(), "5".into())]));
    }
    let status = open_stream(&acme, 6).await.map(tonic::Response::new);
    assert_refused(status, Code::FailedPrecondition, "POSITION_OF_LOST_DATA");
}

/// The chain continues after the checkpoint when all sealed events were deleted. This also holds
/// for the trail of a deleted tenant.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_continues_when_all_its_events_were_deleted() {
    let app = TestApp::with_settings(without_streams).await;
    let acme = app.create_tenant("acme").await;
    let deleted_tenant = app.create_tenant("gone").await;
    let platform_admin = app.platform_admin().await;
    let request =
        tenantry::proto::v1::DeleteTenantRequest { tenant: "gone".into(), etag: String::new() };
    platform_admin.tenants().delete_tenant(request).await.expect("deleted");
    app.wait_until_purged().await;
    app.wait_until_audit_settled().await;
    make_older(&app, &acme.tenant_id, 40).await;
    make_older(&app, &deleted_tenant.tenant_id, 40).await;
    let _replica = trim_to(&app, &acme.tenant_id, 0).await;
    wait_until(30, || async { event_count(&app, &deleted_tenant.tenant_id).await == 0 }).await;

    let mut stream = open_stream(&acme, 0).await.expect("a stream");
    assert_eq!(next_message(&mut stream).await.position, INITIAL_EVENTS);
    create_roles(&acme, &["one"]).await;
    assert_eq!(next_message(&mut stream).await.position, INITIAL_EVENTS + 1);
    let output = run_audit(&app, &["verify"]).await;
    assert!(output.ok, "{output:?}");
    // Each trail has had four events: the three events of a new tenant, and `role_created` or
    // `tenant_deleted`.
    for (tenant, position) in [(&acme.tenant_id, 4), (&deleted_tenant.tenant_id, 4)] {
        let lines = parse_lines(&output);
        let line = lines.iter().find(|line| line["tenant_id"] == **tenant).expect("a line");
        assert_eq!(line["position"], position, "{line}");
    }
}

/// K12: `audit verify` reports it when an administrator of the database deletes events and alters
/// the checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_forged_checkpoint_is_found_and_stops_the_deletion() {
    let app = TestApp::with_settings(without_streams).await;
    // The first three events of each trail are deleted, and the checkpoint is at position 3. The
    // events of two roles remain at positions 4 and 5. `$t` stands for the id of the tenant.
    for (slug, alteration, expected) in [
        (
            "moved",
            "update audit_checkpoints k set position = c.position, hash = c.hash
                 from audit_chain c
                 where k.tenant_id = '$t' and c.tenant_id = '$t' and c.position = 4;
             delete from audit_events e using audit_chain c
                 where e.tenant_id = '$t' and c.tenant_id = '$t' and c.event_id = e.event_id
                 and c.position = 4;
             delete from audit_chain where tenant_id = '$t' and position = 4",
            "another tenant, position or hash",
        ),
        (
            "copied",
            "update audit_checkpoints k set statement = other.statement
                 from audit_checkpoints other
                 where k.tenant_id = '$t' and other.tenant_id <> k.tenant_id",
            "another tenant, position or hash",
        ),
        (
            "altered",
            "update audit_checkpoints set statement = overlay(statement placing '--------' from 150)
                 where tenant_id = '$t'",
            "signature is not valid",
        ),
        (
            "emptied",
            "update audit_checkpoints set statement = '' where tenant_id = '$t'",
            "signature is not valid",
        ),
        ("removed", "delete from audit_checkpoints where tenant_id = '$t'", "position 1 is missing"),
    ] {
        let tenant = app.create_tenant(slug).await;
        app.wait_until_audit_settled().await;
        make_older(&app, &tenant.tenant_id, 40).await;
        create_roles(&tenant, &["one", "two"]).await;
        app.wait_until_audit_settled().await;
        trim_to(&app, &tenant.tenant_id, 2).await.stop().await;
        // The last two events are now also older than the retention.
        make_older(&app, &tenant.tenant_id, 40).await;
        assert_eq!(faults(&app, slug).await, "[]");
        execute(&app, &alteration.replace("$t", &tenant.tenant_id)).await;
        let faults = faults(&app, slug).await;
        assert!(faults.contains(expected), "{slug}: {faults}");
    }
    // The worker deletes nothing from a trail with faults. All five trails have faults.
    let replica = TestApp::on_database(&app.database, with_retention).await;
    wait_for_pass(&replica).await;
    assert_eq!(replica.metric("tenantry_audit_trails_refused").await, Some(5.0));
}

/// K12: no event of an altered trail is deleted, so that the alteration can be found.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_trail_is_not_trimmed() {
    let app = TestApp::with_settings(without_streams).await;
    let (altered_tenant, cut_tenant) =
        (app.create_tenant("altered").await, app.create_tenant("cut").await);
    app.wait_until_audit_settled().await;
    make_older(&app, &altered_tenant.tenant_id, 40).await;
    make_older(&app, &cut_tenant.tenant_id, 40).await;
    let position =
        "event_id = (select event_id from audit_chain where tenant_id = '$t' and position = 2)";
    let alter = format!("update audit_events set kind = 'x' where tenant_id = '$t' and {position}");
    execute(&app, &alter.replace("$t", &altered_tenant.tenant_id)).await;
    let delete = format!("delete from audit_events where tenant_id = '$t' and {position}");
    execute(&app, &delete.replace("$t", &cut_tenant.tenant_id)).await;

    let replica = TestApp::on_database(&app.database, with_retention).await;
    wait_for_pass(&replica).await;
    assert_eq!(replica.metric("tenantry_audit_trails_refused").await, Some(2.0));
    assert_eq!(event_count(&app, &altered_tenant.tenant_id).await, INITIAL_EVENTS);
    assert_eq!(event_count(&app, &cut_tenant.tenant_id).await, INITIAL_EVENTS - 1);
}

/// Events that Redis did not accept are kept, and so are the events after them.
#[tokio::test(flavor = "multi_thread")]
async fn events_that_were_not_sent_are_not_deleted() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    redis(&format!("DEL audit:{{{}}}", acme.tenant_id)).await;
    // A value of another type blocks the stream of the tenant.
    redis(&format!("SET audit:{{{}}} x", acme.tenant_id)).await;
    // Like `make_older`, but without the wait, because the events cannot be sent.
    let requeue = "
        update audit_events set created_at = created_at - interval '40 days' where tenant_id = '$t';
        delete from audit_chain where tenant_id = '$t';
        insert into audit_queue select tenant_id, event_id from audit_events where tenant_id = '$t'";
    execute(&app, &requeue.replace("$t", &acme.tenant_id)).await;
    let waiting = "select count(*) from audit_outbox where tenant_id = $1";
    wait_until(20, || async { app.count(waiting, &acme.tenant_id).await == INITIAL_EVENTS }).await;
    let retention = |values: &mut Values| values.set("AUDIT_RETENTION", "30d");
    let replica = TestApp::on_database(&app.database, retention).await;
    wait_for_pass(&replica).await;
    assert_eq!(event_count(&app, &acme.tenant_id).await, INITIAL_EVENTS);
    replica.stop().await;

    redis(&format!("DEL audit:{{{}}}", acme.tenant_id)).await;
    wait_until(30, || async { app.count(waiting, &acme.tenant_id).await == 0 }).await;
    let _replica = TestApp::on_database(&app.database, retention).await;
    wait_until(30, || async { event_count(&app, &acme.tenant_id).await == 0 }).await;
}

/// The service's role can delete events only through the function `trim_audit_events`. The function
/// deletes only events that are at least 30 days old, and only with the hash of the new checkpoint.
#[tokio::test]
async fn the_services_role_deletes_only_old_events_up_to_a_checkpoint() {
    let app = TestApp::with_settings(without_streams).await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    make_older(&app, &acme.tenant_id, 29).await;
    let pool = app.app_role_pool().await;
    let trim = |from: i64, position: i64, hash: &str| {
        let sql = format!(
            "select trim_audit_events('{}', {from}, {position}, {hash}, 'k', 's')",
            acme.tenant_id
        );
        let pool = pool.clone();
        async move { sqlx::query_scalar::<_, Option<i64>>(AssertSqlSafe(sql)).fetch_one(&pool).await }
    };
    let hashes: Vec<String> = sqlx::query_scalar(
        "select quote_literal(hash) || '::bytea' from audit_chain where tenant_id = $1::text::uuid
         order by position",
    )
    .bind(&acme.tenant_id)
    .fetch_all(&mut app.owner_connection().await)
    .await
    .expect("hashes");
    let error = trim(0, 2, &hashes[1]).await.expect_err("too young").to_string();
    assert!(error.contains("too young"), "{error}");
    make_older(&app, &acme.tenant_id, 2).await;
    // The sealer has computed new hashes, because the times have changed.
    let error = trim(0, 2, &hashes[1]).await.expect_err("another hash").to_string();
    assert!(error.contains("hash"), "{error}");
    for table in ["audit_events", "audit_chain", "audit_checkpoints"] {
        let delete = format!("delete from {table}");
        let error = sqlx::raw_sql(AssertSqlSafe(delete)).execute(&pool).await.expect_err(table);
        assert!(error.to_string().contains("permission denied"), "{error}");
    }
    assert_eq!(event_count(&app, &acme.tenant_id).await, INITIAL_EVENTS);
}

/// A head is the last position and hash of a trail. An operator keeps heads outside of the
/// database. A head of a deleted event can't be compared with the trail. A head at the checkpoint
/// or after it is compared.
#[tokio::test(flavor = "multi_thread")]
async fn kept_heads_are_compared_as_far_as_possible() {
    let app = TestApp::with_settings(without_streams).await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    make_older(&app, &acme.tenant_id, 40).await;
    create_roles(&acme, &["one"]).await;
    app.wait_until_audit_settled().await;
    let all_lines = parse_lines(&run_audit(&app, &["export", "--tenant", "acme"]).await);
    trim_to(&app, &acme.tenant_id, 1).await.stop().await;
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("kept").display().to_string();
    // The checkpoint is at position 3, and the event at position 4 remains.
    for (position, position_of_hash, is_ok, is_compared) in [
        (1, 1, true, false),
        (3, 3, true, true),
        (3, 1, false, true),
        (4, 4, true, true),
        (4, 1, false, true),
    ] {
        let hash = &all_lines[position_of_hash - 1]["hash"];
        let head = serde_json::json!(
            { "tenant_id": acme.tenant_id, "position": position, "hash": hash, "faults": [] });
        std::fs::write(&path, head.to_string()).expect("written");
        let output = run_audit(&app, &["verify", "--tenant", "acme", "--kept", &path]).await;
        assert_eq!(output.ok, is_ok, "{position}: {output:?}");
        let reports_uncompared = output.err.contains("1 of 1 kept hashes could not be compared");
        assert_eq!(reports_uncompared, !is_compared, "{position}: {output:?}");
    }
}

fn use_keys(values: &mut Values, dir: &Path) {
    let paths = pem::paths(dir);
    for (name, path) in [
        ("JWT_ACCESS_PRIVATE_KEY_PATH", paths.access_private),
        ("JWT_ACCESS_PUBLIC_KEY_PATH", paths.access_public),
        ("JWT_REFRESH_PRIVATE_KEY_PATH", paths.refresh_private),
        ("JWT_REFRESH_PUBLIC_KEY_PATH", paths.refresh_public),
    ] {
        values.set(name, path.to_str().expect("text"));
    }
}

fn create_keys() -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    pem::ensure(dir.path(), KeyAlgorithm::Es256).expect("keys");
    dir
}

/// K12: after a replacement of the signing key, the server signs each checkpoint again, even when
/// it trims nothing. The server does not sign a checkpoint that it cannot verify.
#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_signed_again_with_the_current_key() {
    let app = TestApp::with_settings(without_streams).await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    make_older(&app, &acme.tenant_id, 40).await;
    let (old_keys, new_keys) = (create_keys(), create_keys());
    let replica = TestApp::on_database(&app.database, |values| {
        with_retention(values);
        use_keys(values, old_keys.path());
    })
    .await;
    wait_until(30, || async { event_count(&app, &acme.tenant_id).await == 0 }).await;
    let old_jwks = replica.get("/.well-known/jwks.json").await.1;
    replica.stop().await;
    let verify = |dir: &TempDir| {
        let mut values = TestApp::values(&app.database);
        use_keys(&mut values, dir.path());
        let app = &app;
        async move { run_audit_with(app, &values, &["verify", "--tenant", "acme"]).await }
    };
    assert!(verify(&old_keys).await.ok);
    let output = verify(&new_keys).await;
    assert!(!output.ok && output.out.contains("no public key"), "{output:?}");

    // Without the old public key, the server leaves the checkpoint as it is.
    let start_replica = |dir: &TempDir| {
        let dir = dir.path().to_owned();
        let database = app.database.clone();
        async move {
            TestApp::on_database(&database, move |values| {
                without_streams(values);
                use_keys(values, &dir);
            })
            .await
        }
    };
    let replica = start_replica(&new_keys).await;
    wait_for_pass(&replica).await;
    assert_eq!(replica.metric("tenantry_audit_trails_refused").await, Some(1.0));
    replica.stop().await;
    assert!(verify(&old_keys).await.ok);

    // An operator can verify the checkpoint with the old public key, and sign the checkpoint with
    // the new key.
    let jwks = old_keys.path().join("jwks.json").display().to_string();
    std::fs::write(&jwks, old_jwks).expect("written");
    let mut values = TestApp::values(&app.database);
    use_keys(&mut values, new_keys.path());
    let output = run_audit_with(&app, &values, &["sign", "--jwks", &jwks]).await;
    assert!(output.ok && output.out.contains("1 checkpoints were signed"), "{output:?}");
    assert!(verify(&new_keys).await.ok);
    let output = run_audit_with(&app, &values, &["sign", "--jwks", &jwks]).await;
    assert!(output.ok && output.out.contains("0 checkpoints were signed"), "{output:?}");

    // The key is replaced once more. This server has also the old public key, so it signs the
    // checkpoint again by itself.
    let (old_keys, new_keys) = (new_keys, create_keys());
    let read_public_key = |dir: &TempDir| {
        std::fs::read_to_string(pem::paths(dir.path()).access_public).expect("a public key")
    };
    let new_public = read_public_key(&new_keys);
    std::fs::write(
        pem::paths(new_keys.path()).access_public,
        read_public_key(&old_keys) + &new_public,
    )
    .expect("written");
    let replica = start_replica(&new_keys).await;
    wait_for_pass(&replica).await;
    replica.stop().await;
    // Without the old public key, the checkpoint can be verified only if its signature is new.
    std::fs::write(pem::paths(new_keys.path()).access_public, new_public).expect("written");
    let output = verify(&new_keys).await;
    assert!(output.ok, "{output:?}");
}

/// A key service can sign checkpoints. The server has no open transaction while it calls the
/// service.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_service_signs_checkpoints() {
    let service = KeyService::start("ecdsa-p256").await;
    let app = TestApp::with_settings(|values| {
        without_streams(values);
        service.apply_settings(values);
    })
    .await;
    let acme = app.create_tenant("acme").await;
    app.wait_until_audit_settled().await;
    make_older(&app, &acme.tenant_id, 40).await;
    let _replica = TestApp::on_database(&app.database, |values| {
        with_retention(values);
        service.apply_settings(values);
    })
    .await;
    wait_until(30, || async { event_count(&app, &acme.tenant_id).await == 0 }).await;
    let dir = tempfile::tempdir().expect("a folder");
    let jwks = dir.path().join("jwks.json").display().to_string();
    std::fs::write(&jwks, app.get("/.well-known/jwks.json").await.1).expect("written");
    let output = run_audit(&app, &["verify", "--tenant", "acme", "--jwks", &jwks]).await;
    assert!(output.ok, "{output:?}");
}

/// `audit verify` reads a large trail in pages, so that no statement takes long.
#[tokio::test(flavor = "multi_thread")]
async fn a_trail_of_several_pages_is_verified() {
    let app = TestApp::with_settings(without_streams).await;
    let acme = app.create_tenant("acme").await;
    let insert = "insert into audit_events (tenant_id, event_id, kind, request_id, created_at)
        select '$t', gen_random_uuid(), 'call_limited', '', now() - interval '40 days'
        from generate_series(1, 21000)";
    app.wait_until_audit_settled().await;
    execute(&app, &insert.replace("$t", &acme.tenant_id)).await;
    let queue = "select count(*) from audit_queue where tenant_id = $1";
    wait_until(120, || async { app.count(queue, &acme.tenant_id).await == 0 }).await;
    let output = run_audit(&app, &["verify", "--tenant", "acme"]).await;
    assert!(output.ok, "{output:?}");
    // 21000 inserted events, and the three events of a new tenant.
    assert_eq!(parse_lines(&output)[0]["position"], 21_003);
    // The first pages have no faults. The last page has three faults.
    execute(
        &app,
        &"delete from audit_chain where tenant_id = '$t' and position > 21000"
            .replace("$t", &acme.tenant_id),
    )
    .await;
    assert!(faults(&app, "acme").await.contains("3 events have no place"));
}
