//! The master key in a file: it wraps the data keys, and can be rotated.

use std::{fs, path::Path};

use sqlx::AssertSqlSafe;
use tempfile::{TempDir, tempdir};
use tenantry::proto::v1::GetUserRequest;

use super::{assert_readable, wrapping_keys};
use crate::{
    commands::{CommandOutput, run},
    harness::{Cluster, Fault, Proxy, TestApp, wait_until},
};

/// Starts a server with a separate master key. Returns the folder and the path of the key's file.
async fn spawn_with_key() -> (TestApp, TempDir, String) {
    let dir = tempdir().expect("a folder");
    let path = dir.path().join("master.keys").display().to_string();
    let output = run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &path)]).await;
    assert!(output.ok && output.out.contains("made the master key"), "{output:?}");
    let app = TestApp::with_settings(|values| values.set("MASTER_KEY_PATH", path.as_str())).await;
    (app, dir, path)
}

async fn master_key(command: &str, url: &str, path: &str) -> CommandOutput {
    run(&["master-key", command], &[("DATABASE_URL", url), ("MASTER_KEY_PATH", path)]).await
}

/// Ids of the keys in a file, the newest key first.
fn key_ids(path: &str) -> Vec<String> {
    let text = fs::read_to_string(path).expect("a file");
    text.lines().map(|line| line.split(' ').next().expect("an id").to_owned()).collect()
}

#[tokio::test]
async fn an_existing_key_is_not_replaced_and_only_the_owner_of_the_file_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempdir().expect("a folder");
    let path = dir.path().join("master.keys");
    let path_text = path.display().to_string();
    let settings = [("MASTER_KEY_PATH", path_text.as_str())];
    assert!(run(&["master-key", "generate"], &settings).await.ok);
    let first_content = fs::read(&path).expect("a key");
    let second_run = run(&["master-key", "generate"], &settings).await;
    assert!(second_run.ok && second_run.out.contains("already"), "{second_run:?}");
    assert_eq!(fs::read(&path).expect("a key"), first_content);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o600);
    // The key follows an id of eight characters and a space.
    assert!(
        !second_run.out.contains(std::str::from_utf8(&first_content[9..]).expect("text").trim())
    );
    let output = run(&["master-key", "generate"], &[]).await;
    assert!(!output.ok && output.err.contains("MASTER_KEY_PATH must be set"), "{output:?}");
}

/// A rotation while servers run. A server reads the file again when it needs a new key.
#[tokio::test]
async fn a_rotation_wraps_every_data_key_again_without_interruption() {
    let (app, _dir, path) = spawn_with_key().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let old_keys = wrapping_keys(&app).await;
    assert_eq!(old_keys, [format!("file:{}", key_ids(&path)[0])]);

    let url = Cluster::get().app_url(&app.database);
    let output = master_key("rotate", &url, &path).await;
    // The data keys of a and b, and the common data key.
    assert!(output.ok && output.out.contains("3 were wrapped anew"), "{output:?}");
    assert_eq!(key_ids(&path).len(), 2);
    let new_key = format!("file:{}", key_ids(&path)[0]);
    assert_eq!(wrapping_keys(&app).await, [new_key.as_str()]);
    assert_ne!(old_keys, [new_key.as_str()]);
    let list_output = master_key("list", &url, &path).await;
    assert_eq!(list_output.out.split_whitespace().collect::<Vec<_>>(), [new_key.as_str(), "3"]);

    // After every server has read the new file, the old key can be removed.
    let reloads = "tenantry_master_key_reloads_total{outcome=\"ok\"}";
    wait_until(10, || async { app.metric(reloads).await == Some(1.0) }).await;
    let text = fs::read_to_string(&path).expect("a file");
    fs::write(&path, text.lines().next().expect("a key")).expect("written");
    let new_app =
        TestApp::on_database(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str()))
            .await;
    for server in [&app, &new_app] {
        for tenant in [&a, &b] {
            assert_readable(server, tenant).await;
        }
    }
    // Tenants that are created later use the new key.
    assert_readable(&new_app, &app.create_tenant("c").await).await;
}

/// A rotation that is cut off at any statement is completed by the next run. The next run creates
/// no second new key.
#[tokio::test]
async fn an_interrupted_rotation_is_completed_by_the_next_run() {
    let (app, _dir, path) = spawn_with_key().await;
    let tenants =
        [app.create_tenant("a").await, app.create_tenant("b").await, app.create_tenant("c").await];
    let url = Cluster::get().app_url(&app.database);
    for statement in 1.. {
        let proxy = Proxy::postgres().await;
        proxy.fault_at_statement(
            statement,
            if statement % 2 == 0 { Fault::Cut } else { Fault::CutReplies },
        );
        let interrupted = master_key("rotate", &proxy.postgres_url(&app.database), &path).await;
        let keys = key_ids(&path);
        for tenant in &tenants {
            assert_readable(&app, tenant).await;
        }
        // The rotation ended before this statement, so every statement has had a fault.
        if !proxy.has_fault_started() {
            assert!(interrupted.ok && statement > 10, "{statement}: {interrupted:?}");
            break;
        }
        let output = master_key("rotate", &url, &path).await;
        assert!(output.ok, "{statement}: {output:?}");
        // If the first run created a key, the second run used this key. Otherwise, the second run
        // created a key.
        let used_first_key = wrapping_keys(&app).await == [format!("file:{}", keys[0])];
        assert!(
            used_first_key || key_ids(&path).len() == keys.len() + 1,
            "{statement}: {output:?}"
        );
        assert_eq!(
            wrapping_keys(&app).await,
            [format!("file:{}", key_ids(&path)[0])],
            "{statement}"
        );
    }
    let new_app =
        TestApp::on_database(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str()))
            .await;
    for tenant in &tenants {
        assert_readable(&new_app, tenant).await;
    }
}

/// After concurrent rotations, the file has every key that wraps a data key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_rotations_lose_no_key() {
    let (app, _dir, path) = spawn_with_key().await;
    let acme = app.create_tenant("acme").await;
    let url = Cluster::get().app_url(&app.database);
    let rotations = (0..4).map(|_| master_key("rotate", &url, &path));
    let outputs = futures::future::join_all(rotations).await;
    assert!(outputs.iter().all(|output| output.ok), "{outputs:?}");
    // The first key, and one to four new keys.
    assert!((2..=5).contains(&key_ids(&path).len()));
    let output = master_key("rewrap", &url, &path).await;
    assert!(output.ok, "{output:?}");
    let new_app =
        TestApp::on_database(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str()))
            .await;
    assert_readable(&new_app, &acme).await;
    assert_eq!(wrapping_keys(&app).await, [format!("file:{}", key_ids(&path)[0])]);
}

/// Without the master key, or with a wrong one, nothing starts and nothing is written.
#[tokio::test]
async fn without_the_right_master_key_nothing_starts() {
    let (app, dir, path) = spawn_with_key().await;
    app.create_tenant("acme").await;
    let keys_before = wrapping_keys(&app).await;
    let url = Cluster::get().app_url(&app.database);
    let id = key_ids(&path)[0].clone();
    let other_path = dir.path().join("other.keys");
    let other_path = other_path.display().to_string();
    assert!(run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &other_path)]).await.ok);
    // Another key with the same id.
    let forged_path = dir.path().join("forged.keys").display().to_string();
    let text = fs::read_to_string(&other_path).expect("a key");
    let (_, key) = text.split_once(' ').expect("a key");
    fs::write(&forged_path, format!("{id} {key}")).expect("written");

    for (path, expected_error) in [
        ("off", format!("wrapped by {id}, which MASTER_KEY_PATH does not have")),
        (&other_path, format!("wrapped by {id}, which MASTER_KEY_PATH does not have")),
        (&forged_path, format!("the master key {id} does not open it")),
        ("/nowhere", "can't read /nowhere".into()),
    ] {
        for command in [&["seed"][..], &["master-key", "rewrap"]] {
            let output = run(command, &[("DATABASE_URL", &url), ("MASTER_KEY_PATH", path)]).await;
            assert!(!output.ok && output.err.contains(&expected_error), "{command:?} {output:?}");
        }
        let error = serve_error(&app, Path::new(path)).await;
        assert!(error.contains(&expected_error), "{error}");
    }
    assert_eq!(wrapping_keys(&app).await, keys_before);
}

/// N37: a wrong file does not replace the master keys of a running server: new and old tenants can
/// be read, also after a restart with the right file.
#[tokio::test]
async fn wrong_master_keys_do_not_replace_the_keys_of_a_running_server() {
    let (app, dir, path) = spawn_with_key().await;
    let old_tenant = app.create_tenant("old").await;
    let right_content = fs::read_to_string(&path).expect("a file");
    let other_path = dir.path().join("other.keys").display().to_string();
    assert!(run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &other_path)]).await.ok);
    let wrong_content = fs::read_to_string(&other_path).expect("a file");
    let (_, wrong_key) = wrong_content.split_once(' ').expect("a key");
    let forged_content = format!("{} {wrong_key}", key_ids(&path)[0]);
    let metric =
        |outcome: &str| format!("tenantry_master_key_reloads_total{{outcome=\"{outcome}\"}}");
    for (slug, unusable_content) in [("new", &wrong_content), ("newer", &forged_content)] {
        let failures = app.metric(&metric("failed")).await.unwrap_or_default();
        fs::write(&path, unusable_content).expect("written");
        wait_until(10, || async {
            app.metric(&metric("failed")).await.unwrap_or_default() > failures
        })
        .await;
        let new_tenant = app.create_tenant(slug).await;
        assert_readable(&app, &old_tenant).await;
        fs::write(&path, &right_content).expect("written");
        let restarted = TestApp::on_database(&app.database, |values| {
            values.set("MASTER_KEY_PATH", path.as_str());
        })
        .await;
        assert_readable(&restarted, &new_tenant).await;
    }
    assert_eq!(app.metric(&metric("ok")).await, Some(0.0));
    // A file that has the right key and a further key is used.
    fs::write(&path, format!("{wrong_content}{right_content}")).expect("written");
    wait_until(10, || async { app.metric(&metric("ok")).await == Some(1.0) }).await;
    assert_readable(&app, &app.create_tenant("latest").await).await;
}

/// Runs `serve` with this master key. Returns the error with which the start fails.
async fn serve_error(app: &TestApp, path: &Path) -> String {
    let values = TestApp::values(&app.database);
    let mut settings: Vec<(&str, &str)> = tenantry::config::SETTINGS
        .iter()
        .filter_map(|setting| Some((setting.name, values.get(setting.name)?)))
        .filter(|(name, _)| *name != "MASTER_KEY_PATH")
        .collect();
    let path = path.display().to_string();
    settings.push(("MASTER_KEY_PATH", &path));
    let output = run(&["serve"], &settings).await;
    assert!(!output.ok, "{output:?}");
    output.err
}

/// A database created without a master key can get one later.
#[tokio::test]
async fn unwrapped_data_keys_can_be_wrapped_later() {
    let app = TestApp::with_settings(|values| values.set("MASTER_KEY_PATH", "off")).await;
    let acme = app.create_tenant("acme").await;
    assert_eq!(wrapping_keys(&app).await, ["none"]);
    let dir = tempdir().expect("a folder");
    let path = dir.path().join("master.keys").display().to_string();
    assert!(run(&["master-key", "generate"], &[("MASTER_KEY_PATH", &path)]).await.ok);
    let app_with_key =
        TestApp::on_database(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str()))
            .await;
    assert_readable(&app_with_key, &acme).await;
    let url = Cluster::get().app_url(&app.database);
    let output = master_key("rewrap", &url, &path).await;
    // The data key of acme, and the common data key.
    assert!(output.ok && output.out.contains("2 were wrapped anew"), "{output:?}");
    assert_eq!(wrapping_keys(&app).await, [format!("file:{}", key_ids(&path)[0])]);
    assert_readable(&app_with_key, &acme).await;
}

/// A data key is bound to its tenant: it cannot be unwrapped in another tenant's row.
#[tokio::test]
async fn a_data_key_moved_to_another_tenant_cannot_be_unwrapped() {
    let (app, _dir, path) = spawn_with_key().await;
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let swap = format!(
        "update data_keys set wrapped = (select wrapped from data_keys where tenant_id = '{}')
         where tenant_id = '{}'",
        b.tenant_id, a.tenant_id
    );
    sqlx::raw_sql(AssertSqlSafe(swap))
        .execute(&mut app.owner_connection().await)
        .await
        .expect("moved");
    let new_app =
        TestApp::on_database(&app.database, |values| values.set("MASTER_KEY_PATH", path.as_str()))
            .await;
    assert_readable(&new_app, &b).await;
    let user = GetUserRequest { user_id: a.user_id.clone() };
    let reply = a.on_server(&new_app.channel).users().get_user(user).await;
    crate::harness::assert_refused(reply, tonic::Code::Unavailable, "STORE_UNAVAILABLE");
}
