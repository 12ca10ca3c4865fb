//! The master key in a key service. The key never leaves the key service.

use tempfile::tempdir;
use tenantry::{
    config::Values,
    proto::v1::{CreateUserRequest, GetUserRequest},
};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tonic::Code;

use super::{assert_readable, wrapping_keys};
use crate::{
    commands::{CommandOutput, run},
    harness::{Cluster, KeyService, MASTER_KEY_NAME, TestApp, assert_refused, wait_until},
};

/// Settings of a server with all keys in the key service.
fn keys_in_service(service: &KeyService) -> impl Fn(&mut Values) {
    move |values| {
        service.apply_settings(values);
        values.set("MASTER_KEY_PATH", "off");
        values.set("MASTER_TRANSIT_KEY", MASTER_KEY_NAME);
    }
}

async fn master_key(
    app: &TestApp,
    service: &KeyService,
    command: &str,
    file: &str,
) -> CommandOutput {
    let url = Cluster::get().app_url(&app.database);
    let service_settings = service.master_settings();
    let mut settings = vec![("DATABASE_URL", url.as_str()), ("MASTER_KEY_PATH", file)];
    settings.extend(service_settings.iter().map(|(name, value)| (*name, value.as_str())));
    run(&["master-key", command], &settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_keys_are_wrapped_and_rotated_in_the_key_service() {
    let service = KeyService::start("ed25519").await;
    let app = TestApp::with_settings(keys_in_service(&service)).await;
    let acme = app.create_tenant("acme").await;
    assert_readable(&app, &acme).await;
    assert_eq!(wrapping_keys(&app).await, ["transit:tenantry-master:v1"]);

    let output = master_key(&app, &service, "rotate", "off").await;
    assert!(!output.ok && output.err.contains("rotate tenantry-master in the key"), "{output:?}");
    service.rotate(MASTER_KEY_NAME, OffsetDateTime::now_utc());
    assert_readable(&app, &app.create_tenant("later").await).await;
    let both_versions = ["transit:tenantry-master:v1", "transit:tenantry-master:v2"];
    assert_eq!(wrapping_keys(&app).await, both_versions);
    let output = master_key(&app, &service, "rewrap", "off").await;
    // The data key of acme, and the common data key.
    assert!(output.ok && output.out.contains("2 were wrapped anew"), "{output:?}");
    assert_eq!(wrapping_keys(&app).await, both_versions[1..]);

    service.retire_before(MASTER_KEY_NAME, 2);
    let new_app = TestApp::on_database(&app.database, keys_in_service(&service)).await;
    assert_readable(&new_app, &acme).await;
}

/// Moves the master key from a file to a key service while servers run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_key_can_move_from_a_file_to_the_key_service() {
    let service = KeyService::start("ed25519").await;
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let file = app.master_key();
    let app_with_both_keys = TestApp::on_database(&app.database, |values| {
        service.apply_settings(values);
        values.set("MASTER_TRANSIT_KEY", MASTER_KEY_NAME);
    })
    .await;
    let acme =
        app_with_both_keys.anonymous().login("acme", &acme.email, crate::harness::PASSWORD).await;
    let output = master_key(&app, &service, "rewrap", &file).await;
    assert!(output.ok && output.out.contains("2 were wrapped anew"), "{output:?}");
    let service_app = TestApp::on_database(&app.database, keys_in_service(&service)).await;
    assert_readable(&service_app, &acme).await;
    assert_readable(&app_with_both_keys, &acme).await;
}

/// R31: while the key service is unavailable, calls of tenants with cached data keys (`cached_tenant`)
/// succeed, calls of other tenants (`uncached_tenant`) get UNAVAILABLE, and no unreadable data is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_key_service_only_tenants_with_cached_keys_are_served() {
    let mut service = KeyService::start("ed25519").await;
    let app = TestApp::with_settings(keys_in_service(&service)).await;
    let (cached_tenant, uncached_tenant) =
        (app.create_tenant("warm").await, app.create_tenant("cold").await);
    let new_app = TestApp::on_database(&app.database, keys_in_service(&service)).await;
    assert_readable(&new_app, &cached_tenant).await;
    service.stop();

    let get_user = |client: &crate::harness::Client| {
        let user_id = client.user_id.clone();
        let mut users = client.on_server(&new_app.channel).users();
        async move { users.get_user(GetUserRequest { user_id }).await }
    };
    get_user(&cached_tenant).await.expect("the data key is in memory");
    assert_refused(get_user(&uncached_tenant).await, Code::Unavailable, "STORE_UNAVAILABLE");
    let counts_before = app.row_counts().await;
    let request =
        tenantry::proto::v1::CreateUserRequest { email: "new@x.test".into(), ..Default::default() };
    let result = uncached_tenant.on_server(&new_app.channel).users().create_user(request).await;
    assert_refused(result, Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(app.row_counts().await, counts_before);

    service.restart().await;
    assert_readable(&new_app, &uncached_tenant).await;
}

/// N26: no transaction stays open while the key service hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transaction_waits_for_a_hanging_key_service() {
    let mut service = KeyService::start("ed25519").await;
    let app = TestApp::with_settings(keys_in_service(&service)).await;
    let (cached_tenant, uncached_tenant) =
        (app.create_tenant("warm").await, app.create_tenant("cold").await);
    let new_app = TestApp::on_database(&app.database, keys_in_service(&service)).await;
    assert_readable(&new_app, &cached_tenant).await;
    service.stop();
    // A listener that accepts connections and never responds, at the address of the key service.
    let silent_listener = loop {
        if let Ok(listener) = TcpListener::bind(service.addr).await {
            break listener;
        }
        tokio::task::yield_now().await;
    };
    let request = CreateUserRequest { email: "new@x.test".into(), ..CreateUserRequest::default() };
    let mut users = uncached_tenant.on_server(&new_app.channel).users();
    let mut owner_connection = app.owner_connection().await;
    let check_transactions = async {
        let connection = silent_listener.accept().await.expect("the server connects");
        let count_open = "select count(*) from pg_stat_activity
                    where datname = current_database() and usename = 'tenantry_app'
                      and state like 'idle in transaction%'";
        // The server waits longer than this for the key service, so a transaction of the call would
        // stay open. The short transactions of background workers end.
        let owner_connection = tokio::sync::Mutex::new(&mut owner_connection);
        let is_none_open = || async {
            let count = sqlx::query_scalar(count_open)
                .fetch_one(&mut **owner_connection.lock().await)
                .await;
            count.is_ok_and(|open: i64| open == 0)
        };
        wait_until(1, is_none_open).await;
        drop((connection, silent_listener));
    };
    let (reply, ()) = tokio::join!(users.create_user(request), check_transactions);
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    service.restart().await;
    assert_readable(&new_app, &uncached_tenant).await;
}

#[tokio::test]
async fn the_name_of_a_master_key_without_a_key_service_is_refused() {
    let dir = tempdir().expect("a folder");
    let path = dir.path().join("x").display().to_string();
    let settings = [("MASTER_KEY_PATH", path.as_str()), ("MASTER_TRANSIT_KEY", "k")];
    let output = run(&["master-key", "generate"], &settings).await;
    let expected = "MASTER_TRANSIT_KEY is of no use without TRANSIT_URL";
    assert!(!output.ok && output.err.contains(expected), "{output:?}");
    assert!(!dir.path().join("x").exists());
}
