//! Backups: a dump contains all tenants or fails, and it can be restored.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use tenantry::proto::v1::{LogoutRequest, RefreshRequest, RoleLevel, WhoAmIRequest};
use tokio::process::Command;
use tonic::Code;

use super::catalog::faults;
use crate::{
    commands::run as run_command,
    harness::{Client, Cluster, PASSWORD, TestApp, refused},
};

/// Path of a program of the running Postgres version.
async fn program(app: &TestApp, name: &str) -> PathBuf {
    let query = "select setting from pg_config where name = 'BINDIR'";
    let dir: String =
        sqlx::query_scalar(query).fetch_one(&mut app.owner().await).await.expect("a path");
    Path::new(&dir).join(name)
}

async fn output(program: PathBuf, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().await.expect("it runs")
}

/// E16: a backup contains all tenants, and its copy has the same isolation.
#[tokio::test]
async fn the_services_role_cannot_dump() {
    let app = TestApp::spawn().await;
    app.tenant("a").await;
    let pg_dump = program(&app, "pg_dump").await;
    let url = Cluster::get().app_url(&app.database);
    let dumped = output(pg_dump, &["--table=users", "-d", &url]).await;
    let message = String::from_utf8_lossy(&dumped.stderr);
    assert!(!dumped.status.success());
    assert!(message.contains("affected by row-level security policy"), "{message}");
    assert!(!String::from_utf8_lossy(&dumped.stdout).contains("admin@a.test"));
}

/// Copies a server's database with a dump. Returns the name of the copy.
async fn restore(app: &TestApp) -> String {
    let (pg_dump, psql) = (program(app, "pg_dump").await, program(app, "psql").await);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("dump.sql").display().to_string();
    let dumped = output(pg_dump, &["-f", &file, "-d", &app.owner_url()]).await;
    assert!(dumped.status.success(), "{dumped:?}");

    let restored = format!("{}_restored", app.database);
    Cluster::get().empty_database(&restored).await;
    let url = Cluster::get().owner_url(&restored);
    let loaded = output(psql, &["-q", "-v", "ON_ERROR_STOP=1", "-f", &file, "-d", &url]).await;
    assert!(loaded.status.success(), "{loaded:?}");
    restored
}

/// E16: a backup contains all tenants, and its copy has the same isolation.
#[tokio::test]
async fn a_restored_database_is_isolated_like_the_original() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let restored = restore(&app).await;
    let mut owner = Cluster::get().connect_owner(&restored).await;
    assert_eq!(faults(&mut owner).await, [""; 0]);
    let again = TestApp::on(&restored, |_| {}).await;
    again.anonymous().login("acme", &acme.email, PASSWORD).await;
}

/// I12: revoked sessions stay revoked, active ones stay active, and the audit trail continues.
#[tokio::test]
async fn a_restored_database_keeps_revocations() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ended = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    let fired = acme.member("fired", &["user:read"]).await;
    ended.auth().logout(LogoutRequest::default()).await.expect("signs out");
    acme.unassign(&fired.user_id, &acme.role_named("fired").await).await;
    app.audit_settled().await;
    let restored = restore(&app).await;
    // The step that docs/deployment.md requires.
    let mut owner = Cluster::get().connect_owner(&restored).await;
    super::run(&mut owner, "truncate changes, change_marks".into()).await.expect("emptied");

    let again = TestApp::on(&restored, |_| {}).await;
    let here = |client: &Client| client.on(&again.channel);
    here(&acme).auth().who_am_i(WhoAmIRequest {}).await.expect("in force");
    let reply = here(&ended).auth().who_am_i(WhoAmIRequest {}).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let refresh = RefreshRequest {
        refresh_token: ended.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let reply = again.anonymous().auth().refresh(refresh).await;
    refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    assert!(!here(&acme).may(&fired.user_id, "user:read").await);

    // Consistency tokens from before the restore refer to nothing newer than the restored data.
    let role = here(&acme).create_role("late", RoleLevel::Member, &["doc:read"]).await;
    here(&acme).assign(&fired.user_id, &role).await;
    assert!(here(&acme).may(&fired.user_id, "doc:read").await);
    again.audit_settled().await;
    let url = Cluster::get().app_url(&restored);
    let verified =
        run_command(&["audit", "verify", "--tenant", "acme"], &[("DATABASE_URL", &url)]).await;
    assert!(verified.ok, "{verified:?}");
}
