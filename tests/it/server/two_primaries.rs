//! Several Postgres servers accept writes, or an old primary becomes the primary again. The service
//! uses the server with the highest timeline, and never returns to a lower timeline by itself.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::proto::v1::{CreateRoleRequest, CreateUserRequest, RoleLevel};
use tonic::Code;

use crate::{
    commands::run,
    harness::{Client, PrivatePostgres, Proxy, ServerProcess, TestApp, assert_refused, wait_until},
};

const DATABASE: &str = "two-primaries";

fn url(proxies: [&Proxy; 2]) -> String {
    let [first, second] = proxies.map(|proxy| proxy.address().to_string());
    format!("postgres://tenantry_app@{first},{second}/tenantry")
}

async fn start_server(url: &str) -> TestApp {
    TestApp::on_database(DATABASE, |values| values.set("DATABASE_URL", url)).await
}

/// Whether a server has the role.
async fn has_role(postgres: &PrivatePostgres, name: &str) -> bool {
    let url = postgres.url("postgres", "tenantry");
    let mut owner_connection = PgConnection::connect(&url).await.expect("a connection");
    let query = format!("select exists (select from roles where name = '{name}')");
    let exists = sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut owner_connection).await;
    exists.expect("an answer")
}

/// Creates a role with a new name, and returns whether the server has it.
async fn writes_to(client: &Client, postgres: &PrivatePostgres) -> bool {
    let name = format!("role-{}", uuid::Uuid::new_v4().simple());
    let request = CreateRoleRequest {
        name: name.clone(),
        level: RoleLevel::Member.into(),
        ..CreateRoleRequest::default()
    };
    client.roles().create_role(request).await.is_ok() && has_role(postgres, &name).await
}

/// N50: while two servers accept writes, all replicas use the one with the higher timeline, also a
/// replica that starts later. A metric and the log report the second server. When the server with
/// the higher timeline is lost, the other one is refused until `tenantry restored` has run there.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_primaries_the_one_with_the_higher_timeline_is_used() {
    let mut old_primary = PrivatePostgres::start(DATABASE).await;
    let old_proxy = Proxy::to_postgres(old_primary.socket()).await;
    let acme = {
        let app = start_server(&url([&old_proxy, &old_proxy])).await;
        let acme = app.create_tenant("acme").await;
        app.stop().await;
        acme
    };
    let new_primary = old_primary.start_standby().await;
    let new_proxy = Proxy::to_postgres(new_primary.socket()).await;
    let url = url([&old_proxy, &new_proxy]);
    let app = start_server(&url).await;
    let process = ServerProcess::start(&[("DATABASE_URL", &url)]).await;
    let acme = acme.on_server(&app.channel);
    wait_until(10, || writes_to(&acme, &old_primary)).await;
    wait_until(20, || async { app.metric("tenantry_postgres_primaries").await == Some(1.0) }).await;

    new_primary.promote().await;
    wait_until(30, || writes_to(&acme, &new_primary)).await;
    wait_until(30, || async { app.metric("tenantry_postgres_primaries").await == Some(2.0) }).await;
    let several_message =
        "several Postgres servers accept writes: stop those with a lower timeline";
    wait_until(30, || async { !process.log_events(several_message).is_empty() }).await;
    let moved_message = "another Postgres server is the primary";
    wait_until(30, || async { !process.log_events(moved_message).is_empty() }).await;
    let late_replica = start_server(&url).await;
    let late_acme = acme.on_server(&late_replica.channel);
    wait_until(10, || writes_to(&late_acme, &new_primary)).await;
    late_replica.stop().await;

    new_proxy.cut();
    wait_until(10, || async { !app.is_serving().await }).await;
    let is_refused = || async {
        let events = process.log_events("Postgres can't be used");
        let mut causes = events.iter().filter_map(|event| event["cause"].as_str());
        causes.any(|cause| cause.contains("the timeline went back from 2 to 1"))
    };
    wait_until(20, is_refused).await;
    let request =
        CreateUserRequest { email: "bob@acme.test".into(), ..CreateUserRequest::default() };
    let reply = acme.users().create_user(request).await;
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    assert!(!app.is_serving().await);

    let (owner_url, master_key) = (old_primary.url("postgres", "tenantry"), app.master_key());
    let settings = [("MIGRATE_DATABASE_URL", owner_url.as_str()), ("MASTER_KEY_PATH", &master_key)];
    let output = run(&["restored"], &settings).await;
    assert!(output.ok, "{output:?}");
    wait_until(20, || app.is_serving()).await;
    let other = app.create_tenant("other").await;
    assert!(writes_to(&other, &old_primary).await);
}
