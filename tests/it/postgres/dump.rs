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
    harness::{Client, Cluster, PASSWORD, TestApp, assert_refused},
};

/// Path of a program of the running Postgres version.
pub async fn program(app: &TestApp, name: &str) -> PathBuf {
    let query = "select setting from pg_config where name = 'BINDIR'";
    let dir: String = sqlx::query_scalar(query)
        .fetch_one(&mut app.owner_connection().await)
        .await
        .expect("a path");
    Path::new(&dir).join(name)
}

pub async fn run_program(program: PathBuf, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().await.expect("the program runs")
}

/// E16: a backup contains all tenants, so a role that sees only some rows cannot make one.
#[tokio::test]
async fn the_services_role_cannot_dump_a_table() {
    let app = TestApp::spawn().await;
    app.create_tenant("a").await;
    let pg_dump = program(&app, "pg_dump").await;
    let url = Cluster::get().app_url(&app.database);
    let dump = run_program(pg_dump, &["--table=users", "-d", &url]).await;
    let message = String::from_utf8_lossy(&dump.stderr);
    assert!(!dump.status.success());
    assert!(message.contains("affected by row-level security policy"), "{message}");
    assert!(!String::from_utf8_lossy(&dump.stdout).contains("admin@a.test"));
}

/// Copies a server's database with a dump. Returns the name of the copy.
async fn restore(app: &TestApp) -> String {
    let (pg_dump, psql) = (program(app, "pg_dump").await, program(app, "psql").await);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("dump.sql").display().to_string();
    let dump = run_program(pg_dump, &["-f", &file, "-d", &app.owner_url()]).await;
    assert!(dump.status.success(), "{dump:?}");

    let restored = format!("{}_restored", app.database);
    Cluster::get().empty_database(&restored).await;
    let url = Cluster::get().owner_url(&restored);
    let load = run_program(psql, &["-q", "-v", "ON_ERROR_STOP=1", "-f", &file, "-d", &url]).await;
    assert!(load.status.success(), "{load:?}");
    restored
}

/// E16: every rule of the catalog holds in the restored database.
#[tokio::test]
async fn a_restored_database_is_isolated_like_the_original() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let restored = restore(&app).await;
    let mut owner_connection = Cluster::get().connect_owner(&restored).await;
    assert_eq!(faults(&mut owner_connection).await, [""; 0]);
    let restored_app = TestApp::on_database(&restored, |_| {}).await;
    restored_app.anonymous().login("acme", &acme.email, PASSWORD).await;
}

/// I12: revoked sessions stay revoked, active sessions stay active, and the audit trail continues.
#[tokio::test]
async fn a_restored_database_keeps_revocations() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let signed_out_client = app.anonymous().login("acme", &acme.email, PASSWORD).await;
    let fired = acme.create_member("fired", &["user:read"]).await;
    signed_out_client.auth().logout(LogoutRequest::default()).await.expect("signs out");
    acme.unassign(&fired.user_id, &acme.role_id("fired").await).await;
    app.wait_until_audit_settled().await;
    let restored = restore(&app).await;
    let restored_app = TestApp::on_database(&restored, |_| {}).await;
    let on_restored = |client: &Client| client.on_server(&restored_app.channel);
    on_restored(&acme).auth().who_am_i(WhoAmIRequest {}).await.expect("the session is active");
    let reply = on_restored(&signed_out_client).auth().who_am_i(WhoAmIRequest {}).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    let refresh = RefreshRequest {
        refresh_token: signed_out_client.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let reply = restored_app.anonymous().auth().refresh(refresh).await;
    assert_refused(reply, Code::Unauthenticated, "TOKEN_INVALID");
    assert!(!on_restored(&acme).user_may(&fired.user_id, "user:read").await);

    // Changes after the restore apply to decisions.
    let role = on_restored(&acme).create_role("late", RoleLevel::Member, &["doc:read"]).await;
    on_restored(&acme).assign(&fired.user_id, &role).await;
    assert!(on_restored(&acme).user_may(&fired.user_id, "doc:read").await);
    restored_app.wait_until_audit_settled().await;
    let url = Cluster::get().app_url(&restored);
    let output =
        run_command(&["audit", "verify", "--tenant", "acme"], &[("DATABASE_URL", &url)]).await;
    assert!(output.ok, "{output:?}");
}
