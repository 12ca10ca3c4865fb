//! Backups: never silently of one tenant, and good for a restore.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use tokio::process::Command;

use super::catalog::faults;
use crate::harness::{Cluster, TestApp};

/// A program that came with the running Postgres.
async fn program(app: &TestApp, name: &str) -> PathBuf {
    let query = "select setting from pg_config where name = 'BINDIR'";
    let dir: String =
        sqlx::query_scalar(query).fetch_one(&mut app.owner().await).await.expect("it");
    Path::new(&dir).join(name)
}

async fn output(program: PathBuf, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().await.expect("it runs")
}

/// E16
#[tokio::test]
async fn the_service_role_can_not_dump() {
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

/// E16
#[tokio::test]
async fn a_restored_database_is_closed_as_the_original_was() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let (pg_dump, psql) = (program(&app, "pg_dump").await, program(&app, "psql").await);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("dump.sql").display().to_string();
    let dumped = output(pg_dump, &["-f", &file, "-d", &app.owner_url()]).await;
    assert!(dumped.status.success(), "{dumped:?}");

    let restored = format!("{}_restored", app.database);
    Cluster::get().empty_database(&restored).await;
    let url = Cluster::get().owner_url(&restored);
    let loaded = output(psql, &["-q", "-v", "ON_ERROR_STOP=1", "-f", &file, "-d", &url]).await;
    assert!(loaded.status.success(), "{loaded:?}");

    let mut owner = Cluster::get().connect_owner(&restored).await;
    assert_eq!(faults(&mut owner).await, [""; 0]);
    let again = TestApp::on(&restored, |_| {}).await;
    again.anonymous().login("acme", &acme.email, crate::harness::PASSWORD).await;
}
