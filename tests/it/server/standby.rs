//! Postgres is a standby, read-only, or has another schema than the program needs: nothing is
//! decided from outdated data, and the server recovers by itself.

use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tenantry::proto::v1::{
    CheckRequest, Consistency, CreateUserRequest, RoleLevel, UnassignRoleRequest,
};
use tonic::Code;

use crate::harness::{Client, PrivatePostgres, Proxy, TestApp, assert_refused, reason, wait_until};

/// Assigns 5,000 transaction ids.
const USE_UP_IDS: &str = "do $$ begin
    for i in 1..5000 loop perform pg_current_xact_id(); commit; end loop;
end $$";

/// Asks about `invoice:read` of a user, with each kind of consistency. The results are in the order
/// `MinimizeLatency`, `AtLeastAsFresh` (with `token`), `FullyConsistent`.
async fn check_with_each_consistency(
    client: &Client,
    user_id: &str,
    token: &str,
) -> Vec<Result<bool, tonic::Status>> {
    let mut results = Vec::new();
    for (consistency, token) in [
        (Consistency::MinimizeLatency, ""),
        (Consistency::AtLeastAsFresh, token),
        (Consistency::FullyConsistent, ""),
    ] {
        let request = CheckRequest {
            user_id: user_id.into(),
            permission: "invoice:read".into(),
            consistency: consistency.into(),
            consistency_token: token.into(),
            ..CheckRequest::default()
        };
        let reply = client.permissions().check(request).await;
        results.push(reply.map(|reply| reply.into_inner().allowed));
    }
    results
}

/// A server whose connections to Postgres pass through these proxies.
async fn start_server(name: &str, proxies: &[&Proxy]) -> TestApp {
    let hosts: Vec<String> = proxies.iter().map(|proxy| proxy.address().to_string()).collect();
    let url = format!(
        "postgres://tenantry_app@{}/tenantry?target_session_attrs=read-write",
        hosts.join(",")
    );
    TestApp::on_database(name, |values| values.set("DATABASE_URL", url)).await
}

/// Asserts that statements on a standby fail, and read no rows. A pooler could move a connection
/// from the primary to a standby between two statements.
async fn assert_no_rows_are_read(standby: &PrivatePostgres, acme: &Client, user_id: &str) {
    let mut connection = PgConnection::connect(&standby.app_url()).await.expect("a connection");
    let set_tenant = format!("set tenantry.tenant = '{}'", acme.tenant_id);
    sqlx::raw_sql(AssertSqlSafe(set_tenant))
        .execute(&mut connection)
        .await
        .expect("the tenant is set");
    for query in [
        "select * from users".to_owned(),
        "select * from sessions".to_owned(),
        "select * from find_tenant('acme')".to_owned(),
        "select * from read_changes(null)".to_owned(),
        "select * from read_changes(pg_current_snapshot())".to_owned(),
        format!(
            "select * from subject_standings('{}', array['{user_id}']::uuid[], null)",
            acme.tenant_id
        ),
    ] {
        let result = sqlx::raw_sql(AssertSqlSafe(query.clone())).fetch_all(&mut connection).await;
        let error = result.map(|rows| rows.len()).expect_err(&query);
        let error = error.into_database_error().expect("an error of Postgres");
        assert_eq!(error.code().as_deref(), Some("25006"), "{query}: {error}");
    }
}

/// N28: while the connections lead to a standby, which lacks a revocation, nothing is allowed, and
/// the server is not ready. A server does not start on a standby. After a failover, the server uses
/// the new primary.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_decides_nothing() {
    let mut primary = PrivatePostgres::start("standby").await;
    let proxy = Proxy::to_postgres(primary.socket()).await;
    let (acme, user, role, early_token) = {
        let app = start_server("standby", &[&proxy]).await;
        let acme = app.create_tenant("acme").await;
        let user = acme.create_user("ada@acme.test").await;
        let role = acme.create_role("reader", RoleLevel::Member, &["invoice:read"]).await;
        acme.assign(&user, &role).await;
        let early_check =
            acme.decide(CheckRequest { permission: "a:b".into(), ..CheckRequest::default() });
        let early_token = early_check.await.consistency_token;
        app.stop().await;
        (acme, user, role, early_token)
    };
    let standby = primary.start_standby().await;
    let other_proxy = Proxy::to_postgres(standby.socket()).await;
    let error = TestApp::start_error("standby", standby.app_url()).await;
    assert!(error.contains("the server is a standby"), "{error}");

    assert_no_rows_are_read(&standby, &acme, &user).await;

    // The URL names the standby first: the server finds the primary.
    let app = start_server("standby", &[&other_proxy, &proxy]).await;
    wait_until(10, || app.is_serving()).await;
    let acme = acme.on_server(&app.channel);
    assert!(acme.user_may(&user, "invoice:read").await);
    let request = UnassignRoleRequest {
        user_id: user.clone(),
        role_id: role.clone(),
        ..UnassignRoleRequest::default()
    };
    let reply = acme.roles().unassign_role(request).await.expect("unassigned");
    let token = reply.into_inner().consistency_token;
    assert!(!acme.user_may(&user, "invoice:read").await);

    // The address of the primary now leads to the standby.
    proxy.switch_to(standby.socket());
    wait_until(10, || async {
        let results = check_with_each_consistency(&acme, &user, &token).await;
        assert!(!results.iter().any(|result| matches!(result, Ok(true))), "{results:?}");
        !app.is_serving().await
    })
    .await;
    wait_until(10, || async {
        let results = check_with_each_consistency(&acme, &user, &token).await;
        assert!(!results.iter().any(|result| matches!(result, Ok(true))), "{results:?}");
        results.iter().all(Result::is_err)
    })
    .await;

    // The primary is back at the other address.
    other_proxy.switch_to(primary.socket());
    wait_until(10, || app.is_serving()).await;
    wait_until(10, || async {
        let results = check_with_each_consistency(&acme, &user, &token).await;
        results.iter().all(|result| matches!(result, Ok(false)))
    })
    .await;

    // The primary is lost, and the standby becomes the primary.
    other_proxy.cut();
    standby.promote().await;
    wait_until(10, || app.is_serving()).await;
    wait_until(10, || async {
        let results = check_with_each_consistency(&acme, &user, &token).await;
        results[0].is_ok() && results[2].is_ok()
    })
    .await;

    // N39: the new primary uses the transaction id of the lost change again. So the token of the
    // lost change is refused.
    let mut connection = PgConnection::connect(&standby.app_url()).await.expect("a connection");
    sqlx::raw_sql(USE_UP_IDS).execute(&mut connection).await.expect("used");
    wait_until(10, || async {
        let results = check_with_each_consistency(&acme, &user, &token).await;
        assert!(results[1].is_err(), "{results:?}");
        results[1].as_ref().is_err_and(|status| reason(status) == "TOKEN_OF_LOST_DATA")
    })
    .await;
    // A token from before the start of the standby is accepted: the new primary has all changes
    // that the token includes.
    let results = check_with_each_consistency(&acme, &user, &early_token).await;
    assert!(matches!(results[1], Ok(true)), "{results:?}");
    let later_check =
        acme.decide(CheckRequest { permission: "a:b".into(), ..CheckRequest::default() });
    let later_token = later_check.await.consistency_token;
    let results = check_with_each_consistency(&acme, &user, &later_token).await;
    assert!(matches!(results[1], Ok(true)), "{results:?}");
}

/// N29: while Postgres is read-only, writes are unavailable and the server is not ready. When
/// Postgres accepts writes again, writes succeed and the server is ready.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_read_only_phase_writes_succeed_again() {
    let postgres = PrivatePostgres::start("read-only").await;
    let proxy = Proxy::to_postgres(postgres.socket()).await;
    let app = start_server("read-only", &[&proxy]).await;
    let acme = app.create_tenant("acme").await;
    for user in ["bob@acme.test", "carol@acme.test"] {
        postgres.set_read_only(true).await;
        wait_until(10, || async { !app.is_serving().await }).await;
        let request = CreateUserRequest { email: user.into(), ..CreateUserRequest::default() };
        let reply = acme.users().create_user(request).await;
        assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
        assert_eq!(app.metric("tenantry_postgres_up").await, Some(0.0));
        postgres.set_read_only(false).await;
        wait_until(10, || app.is_serving()).await;
        acme.create_user(user).await;
        assert_eq!(app.metric("tenantry_postgres_up").await, Some(1.0));
    }
}

/// N35: the start fails with the address and the cause.
#[tokio::test]
async fn the_error_of_a_failed_start_has_the_address_and_the_cause() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let error =
        TestApp::start_error("nowhere", format!("postgres://tenantry_app@{address}/tenantry"))
            .await;
    assert!(error.contains(&address.to_string()), "{error}");
    assert!(error.to_lowercase().contains("refused"), "{error}");
}

/// N28: a call with a token whose transaction id Postgres has not assigned yet gets no decision,
/// because the decision would use data older than the token. Another Postgres, which is ahead,
/// stands for a primary whose last commits a failover lost.
#[tokio::test]
async fn a_token_that_postgres_has_not_reached_is_not_answered() {
    let server_ahead = TestApp::spawn().await;
    sqlx::raw_sql(USE_UP_IDS)
        .execute(&mut server_ahead.owner_connection().await)
        .await
        .expect("used");
    let acme_ahead = server_ahead.create_tenant("acme").await;
    let token =
        acme_ahead.decide(CheckRequest { permission: "a:b".into(), ..CheckRequest::default() });
    let token = token.await.consistency_token;

    let postgres = PrivatePostgres::start("behind").await;
    let app = TestApp::on_database("behind", |values| {
        values.set("DATABASE_URL", postgres.app_url());
    })
    .await;
    let acme = app.create_tenant("acme").await;
    for consistency in [Consistency::AtLeastAsFresh, Consistency::FullyConsistent] {
        let request = CheckRequest {
            permission: "user:read".into(),
            consistency: consistency.into(),
            consistency_token: token.clone(),
            ..CheckRequest::default()
        };
        let reply = acme.permissions().check(request).await;
        assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    }
}
