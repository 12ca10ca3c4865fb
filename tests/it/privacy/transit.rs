//! The master key in a key service. The key never leaves the key service.

use tempfile::tempdir;
use tenantry::{
    config::Values,
    proto::v1::{CreateUserRequest, GetUserRequest},
};
use time::OffsetDateTime;
use tokio::net::TcpListener;
use tonic::Code;

use super::{is_readable, wrapped_by};
use crate::{
    commands::{Ran, run},
    harness::{Cluster, KeyService, MASTER, TestApp, refused},
};

/// Settings of a server with all keys in the key service.
fn keys_in_service(service: &KeyService) -> impl Fn(&mut Values) {
    move |values| {
        service.set(values);
        values.set("MASTER_KEY_PATH", "off");
        values.set("MASTER_TRANSIT_KEY", MASTER);
    }
}

async fn master_key(app: &TestApp, service: &KeyService, command: &str, file: &str) -> Ran {
    let url = Cluster::get().app_url(&app.database);
    let service_settings = service.master_settings();
    let mut settings = vec![("DATABASE_URL", url.as_str()), ("MASTER_KEY_PATH", file)];
    settings.extend(service_settings.iter().map(|(name, value)| (*name, value.as_str())));
    run(&["master-key", command], &settings).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_keys_are_wrapped_and_rotated_in_the_key_service() {
    let service = KeyService::start("ed25519").await;
    let app = TestApp::with(keys_in_service(&service)).await;
    let acme = app.tenant("acme").await;
    is_readable(&app, &acme).await;
    assert_eq!(wrapped_by(&app).await, ["transit:tenantry-master:v1"]);

    let refused = master_key(&app, &service, "rotate", "off").await;
    assert!(
        !refused.ok && refused.err.contains("rotate tenantry-master in the key"),
        "{refused:?}"
    );
    service.rotate(MASTER, OffsetDateTime::now_utc());
    is_readable(&app, &app.tenant("later").await).await;
    let both = ["transit:tenantry-master:v1", "transit:tenantry-master:v2"];
    assert_eq!(wrapped_by(&app).await, both);
    let ran = master_key(&app, &service, "rewrap", "off").await;
    assert!(ran.ok && ran.out.contains("2 were wrapped anew"), "{ran:?}");
    assert_eq!(wrapped_by(&app).await, both[1..]);

    service.retire_before(MASTER, 2);
    let fresh = TestApp::on(&app.database, keys_in_service(&service)).await;
    is_readable(&fresh, &acme).await;
}

/// Moves the master key from a file to a key service while servers run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_key_can_move_from_a_file_to_the_key_service() {
    let service = KeyService::start("ed25519").await;
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let file = app.master_key();
    let both = TestApp::on(&app.database, |values| {
        service.set(values);
        values.set("MASTER_TRANSIT_KEY", MASTER);
    })
    .await;
    let acme = both.anonymous().login("acme", &acme.email, crate::harness::PASSWORD).await;
    let ran = master_key(&app, &service, "rewrap", &file).await;
    assert!(ran.ok && ran.out.contains("2 were wrapped anew"), "{ran:?}");
    let service_app = TestApp::on(&app.database, keys_in_service(&service)).await;
    is_readable(&service_app, &acme).await;
    is_readable(&both, &acme).await;
}

/// R31: while the key service is unavailable, calls of tenants with cached data keys succeed, calls
/// of other tenants get UNAVAILABLE, and no unreadable data is written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_key_service_only_tenants_with_cached_keys_are_served() {
    let mut service = KeyService::start("ed25519").await;
    let app = TestApp::with(keys_in_service(&service)).await;
    let (warm, cold) = (app.tenant("warm").await, app.tenant("cold").await);
    let fresh = TestApp::on(&app.database, keys_in_service(&service)).await;
    is_readable(&fresh, &warm).await;
    service.stop();

    let ask = |client: &crate::harness::Client| {
        let user_id = client.user_id.clone();
        let mut users = client.on(&fresh.channel).users();
        async move { users.get_user(GetUserRequest { user_id }).await }
    };
    ask(&warm).await.expect("its key is in memory");
    refused(ask(&cold).await, Code::Unavailable, "STORE_UNAVAILABLE");
    let before = app.row_counts().await;
    let request =
        tenantry::proto::v1::CreateUserRequest { email: "new@x.test".into(), ..Default::default() };
    let result = cold.on(&fresh.channel).users().create_user(request).await;
    refused(result, Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(app.row_counts().await, before);

    service.restart().await;
    is_readable(&fresh, &cold).await;
}

/// N26: no transaction stays open while the key service hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_transaction_waits_for_a_hanging_key_service() {
    let mut service = KeyService::start("ed25519").await;
    let app = TestApp::with(keys_in_service(&service)).await;
    let (warm, cold) = (app.tenant("warm").await, app.tenant("cold").await);
    let fresh = TestApp::on(&app.database, keys_in_service(&service)).await;
    is_readable(&fresh, &warm).await;
    service.stop();
    let hanging = loop {
        if let Ok(hanging) = TcpListener::bind(service.addr).await {
            break hanging;
        }
        tokio::task::yield_now().await;
    };
    let request = CreateUserRequest { email: "new@x.test".into(), ..CreateUserRequest::default() };
    let mut users = cold.on(&fresh.channel).users();
    let mut owner = app.owner().await;
    let look = async {
        let asked = hanging.accept().await.expect("it is asked");
        let open = "select count(*) from pg_stat_activity
                    where datname = current_database() and usename = 'tenantry_app'
                      and state like 'idle in transaction%'";
        let open: i64 = sqlx::query_scalar(open).fetch_one(&mut owner).await.expect("a count");
        assert_eq!(open, 0);
        drop((asked, hanging));
    };
    let (reply, ()) = tokio::join!(users.create_user(request), look);
    refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    service.restart().await;
    is_readable(&fresh, &cold).await;
}

#[tokio::test]
async fn a_key_name_without_a_key_service_is_refused() {
    let dir = tempdir().expect("a folder");
    let path = dir.path().join("x").display().to_string();
    let settings = [("MASTER_KEY_PATH", path.as_str()), ("MASTER_TRANSIT_KEY", "k")];
    let ran = run(&["master-key", "generate"], &settings).await;
    let expected = "MASTER_TRANSIT_KEY is of no use without TRANSIT_URL";
    assert!(!ran.ok && ran.err.contains(expected), "{ran:?}");
    assert!(!dir.path().join("x").exists());
}
