//! The master key in a file: it wraps the data keys, and can be rotated.

use std::{fs, path::Path};

use sqlx::AssertSqlSafe;
use tempfile::{TempDir, tempdir};
use tenantry::proto::v1::GetUserRequest;

use super::{is_readable, wrapped_by};
use crate::{
    commands::{Ran, run},
    harness::{Cluster, Proxy, TestApp, Then, until},
};

/// A server with its own master key, and the path of the key's file.
async fn with_key() -> (TestApp, TempDir, String) {
    let dir = tempdir().expect("a folder");
    let path = dir.path().join("master.keys").display().to_string();
    let made = run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &path)]).await;
    assert!(made.ok && made.out.contains("made the master key"), "{made:?}");
    let app = TestApp::with(|values| values.set("MASTER_KEY_PATH", path.as_str())).await;
    (app, dir, path)
}

async fn master_key(command: &str, url: &str, path: &str) -> Ran {
    run(&["master-key", command], &[("DATABASE_URL", url), ("MASTER_KEY_PATH", path)]).await
}

fn ids(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a file");
    text.lines().map(|line| line.split(' ').next().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn an_existing_key_is_kept_and_only_its_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir().expect("a folder");
    let path = dir.path().join("master.keys");
    let shown = path.display().to_string();
    let settings = [("MASTER_KEY_PATH", shown.as_str())];
    assert!(run(&["master-key", "generate"], &settings).await.ok);
    let first = fs::read(&path).expect("a key");
    let again = run(&["master-key", "generate"], &settings).await;
    assert!(again.ok && again.out.contains("already"), "{again:?}");
    assert_eq!(fs::read(&path).expect("a key"), first);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    assert!(!again.out.contains(std::str::from_utf8(&first[9..]).expect("text").trim()));
    let none = run(&["master-key", "generate"], &[]).await;
    assert!(!none.ok && none.err.contains("MASTER_KEY_PATH must be set"), "{none:?}");
}

/// A rotation while servers run. Servers read the new file when they need a new key.
#[tokio::test]
async fn a_rotation_wraps_every_data_key_again_without_interruption() {
    let (app, _dir, path) = with_key().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let old = wrapped_by(&app).await;
    assert_eq!(old, [format!("file:{}", ids(&path)[0])]);

    let url = Cluster::get().app_url(&app.database);
    let ran = master_key("rotate", &url, &path).await;
    assert!(ran.ok && ran.out.contains("3 were wrapped anew"), "{ran:?}");
    assert_eq!(ids(&path).len(), 2);
    let new = format!("file:{}", ids(&path)[0]);
    assert_eq!(wrapped_by(&app).await, [new.as_str()]);
    assert_ne!(old, [new.as_str()]);
    let listed = master_key("list", &url, &path).await;
    assert_eq!(listed.out.split_whitespace().collect::<Vec<_>>(), [new.as_str(), "3"]);

    // After every server has read the new file, the old key can be removed.
    let reloads = "tenantry_master_key_reloads_total{outcome=\"ok\"}";
    until(10, || async { app.metric(reloads).await == Some(1.0) }).await;
    let text = fs::read_to_string(&path).expect("a file");
    fs::write(&path, text.lines().next().expect("a key")).expect("written");
    let fresh =
        TestApp::on(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str())).await;
    for server in [&app, &fresh] {
        for tenant in [&a, &b] {
            is_readable(server, tenant).await;
        }
    }
    // Later tenants use the new key.
    is_readable(&fresh, &app.tenant("c").await).await;
}

/// A rotation cut off at any statement is completed by the next run, which creates no further
/// key.
#[tokio::test]
async fn an_interrupted_rotation_is_completed_by_the_next_run() {
    let (app, _dir, path) = with_key().await;
    let tenants = [app.tenant("a").await, app.tenant("b").await, app.tenant("c").await];
    let url = Cluster::get().app_url(&app.database);
    for at in 1.. {
        let proxy = Proxy::postgres().await;
        proxy.at_statement(at, if at % 2 == 0 { Then::Cut } else { Then::CutReplies });
        let cut = master_key("rotate", &proxy.postgres_url(&app.database), &path).await;
        let keys = ids(&path);
        for tenant in &tenants {
            is_readable(&app, tenant).await;
        }
        if !proxy.has_fired() {
            assert!(cut.ok && at > 10, "{at}: {cut:?}");
            break;
        }
        let ran = master_key("rotate", &url, &path).await;
        assert!(ran.ok, "{at}: {ran:?}");
        let began = wrapped_by(&app).await == [format!("file:{}", keys[0])];
        assert!(began || ids(&path).len() == keys.len() + 1, "{at}: {ran:?}");
        assert_eq!(wrapped_by(&app).await, [format!("file:{}", ids(&path)[0])], "{at}");
    }
    let fresh =
        TestApp::on(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str())).await;
    for tenant in &tenants {
        is_readable(&fresh, tenant).await;
    }
}

/// Concurrent rotations lose no key that wraps a data key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_rotations_lose_no_key() {
    let (app, _dir, path) = with_key().await;
    let acme = app.tenant("acme").await;
    let url = Cluster::get().app_url(&app.database);
    let rotations = (0..4).map(|_| master_key("rotate", &url, &path));
    let ran = futures::future::join_all(rotations).await;
    assert!(ran.iter().all(|ran| ran.ok), "{ran:?}");
    assert!((2..=5).contains(&ids(&path).len()));
    let ran = master_key("rewrap", &url, &path).await;
    assert!(ran.ok, "{ran:?}");
    let fresh =
        TestApp::on(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str())).await;
    is_readable(&fresh, &acme).await;
    assert_eq!(wrapped_by(&app).await, [format!("file:{}", ids(&path)[0])]);
}

/// Without the master key, or with a wrong one, nothing starts and nothing is written.
#[tokio::test]
async fn without_the_right_master_key_nothing_starts() {
    let (app, dir, path) = with_key().await;
    app.tenant("acme").await;
    let before = wrapped_by(&app).await;
    let url = Cluster::get().app_url(&app.database);
    let id = ids(&path)[0].clone();
    let other = dir.path().join("other.keys");
    let other = other.display().to_string();
    assert!(run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &other)]).await.ok);
    // Another key with the same id.
    let forged = dir.path().join("forged.keys").display().to_string();
    let text = fs::read_to_string(&other).expect("a key");
    let (_, key) = text.split_once(' ').expect("a key");
    fs::write(&forged, format!("{id} {key}")).expect("written");

    for (path, wanted) in [
        ("off", format!("wrapped by {id}, which MASTER_KEY_PATH does not have")),
        (&other, format!("wrapped by {id}, which MASTER_KEY_PATH does not have")),
        (&forged, format!("the master key {id} does not open it")),
        ("/nowhere", "can't read /nowhere".into()),
    ] {
        for command in [&["seed"][..], &["master-key", "rewrap"]] {
            let ran = run(command, &[("DATABASE_URL", &url), ("MASTER_KEY_PATH", path)]).await;
            assert!(!ran.ok && ran.err.contains(&wanted), "{command:?} {ran:?}");
        }
        let served = serve(&app, Path::new(path)).await;
        assert!(served.contains(&wanted), "{served}");
    }
    assert_eq!(wrapped_by(&app).await, before);
}

async fn serve(app: &TestApp, path: &Path) -> String {
    let values = TestApp::values(&app.database);
    let mut settings: Vec<(&str, &str)> = tenantry::config::SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.name, values.get(setting.name)?)))
        .filter(|(name, _)| *name != "MASTER_KEY_PATH")
        .collect();
    let path = path.display().to_string();
    settings.push(("MASTER_KEY_PATH", &path));
    let ran = run(&["serve"], &settings).await;
    assert!(!ran.ok, "{ran:?}");
    ran.err
}

/// A database created without a master key can get one later.
#[tokio::test]
async fn unwrapped_data_keys_can_be_wrapped_later() {
    let app = TestApp::with(|values| values.set("MASTER_KEY_PATH", "off")).await;
    let acme = app.tenant("acme").await;
    assert_eq!(wrapped_by(&app).await, ["none"]);
    let dir = tempdir().expect("a folder");
    let path = dir.path().join("master.keys").display().to_string();
    assert!(run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &path)]).await.ok);
    let with_key =
        TestApp::on(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str())).await;
    is_readable(&with_key, &acme).await;
    let url = Cluster::get().app_url(&app.database);
    let ran = master_key("rewrap", &url, &path).await;
    assert!(ran.ok && ran.out.contains("2 were wrapped anew"), "{ran:?}");
    assert_eq!(wrapped_by(&app).await, [format!("file:{}", ids(&path)[0])]);
    is_readable(&with_key, &acme).await;
}

/// A data key is bound to its tenant: it does not open in another tenant's row.
#[tokio::test]
async fn a_data_key_moved_to_another_tenant_does_not_open() {
    let (app, _dir, path) = with_key().await;
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let swap = format!(
        "update data_keys set wrapped = (select wrapped from data_keys where tenant_id = '{}')
         where tenant_id = '{}'",
        b.tenant_id, a.tenant_id
    );
    sqlx::raw_sql(AssertSqlSafe(swap)).execute(&mut app.owner().await).await.expect("moved");
    let fresh =
        TestApp::on(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str())).await;
    is_readable(&fresh, &b).await;
    let user = GetUserRequest { user_id: a.user_id.clone() };
    let reply = a.on(&fresh.channel).users().get_user(user).await;
    crate::harness::refused(reply, tonic::Code::Unavailable, "STORE_UNAVAILABLE");
}
