//! Postgres is unavailable or does not answer: calls get a correct status, and the server
//! recovers by itself.

use tenantry::proto::v1::{
    CheckRequest, CreateRoleRequest, ListUsersRequest, LoginRequest, RefreshRequest, RoleLevel,
    WhoAmIRequest,
};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::harness::{
    Client, Cluster, PASSWORD, Proxy, ServerProcess, TestApp, assert_refused, wait_until,
    within_seconds,
};

/// Starts a server that reaches Postgres through a proxy that can fail.
async fn start_server_behind_proxy(request_timeout: &str) -> (TestApp, Proxy, Client) {
    let direct_app = TestApp::spawn().await;
    let acme = direct_app.create_tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct_app.database);
    let app = TestApp::on_database(&direct_app.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("REQUEST_TIMEOUT", request_timeout);
    })
    .await;
    let acme = acme.on_server(&app.channel);
    (app, proxy, acme)
}

/// Makes one call of each kind that needs Postgres.
async fn call_each_kind(client: &Client) -> Vec<Result<(), Status>> {
    let login_request = LoginRequest {
        email: client.email.clone(),
        password: PASSWORD.into(),
        organization_slug: client.slug.clone(),
        ..LoginRequest::default()
    };
    let refresh_request = RefreshRequest {
        refresh_token: client.tokens.refresh_token.clone(),
        request_id: "once".into(),
    };
    let check_request = CheckRequest { permission: "user:read".into(), ..CheckRequest::default() };
    vec![
        client.auth().login(login_request).await.map(drop),
        client.auth().refresh(refresh_request).await.map(drop),
        client.auth().who_am_i(WhoAmIRequest {}).await.map(drop),
        client.permissions().check(check_request).await.map(drop),
        client.users().list_users(ListUsersRequest::default()).await.map(drop),
    ]
}

/// I01: without Postgres, calls return UNAVAILABLE with a retry delay.
#[tokio::test]
async fn calls_are_unavailable_until_postgres_is_back() {
    let (app, proxy, acme) = start_server_behind_proxy("30s").await;
    wait_until(10, || app.is_serving()).await;
    proxy.cut();
    for reply in within_seconds(20, call_each_kind(&acme)).await {
        let status =
            assert_refused(reply.map(tonic::Response::new), Code::Unavailable, "STORE_UNAVAILABLE");
        assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    }
    wait_until(10, || async { !app.is_serving().await }).await;
    proxy.pass();
    wait_until(10, || async { call_each_kind(&acme).await.iter().all(Result::is_ok) }).await;
    wait_until(10, || app.is_serving()).await;
}

/// I01: while Postgres hangs, the server is not ready. The server recovers without a restart.
/// I03: a call ends at its deadline.
/// N35: while the server is not ready, calls do not wait for their deadline.
#[tokio::test]
async fn calls_time_out_while_postgres_hangs() {
    let (app, proxy, acme) = start_server_behind_proxy("1s").await;
    wait_until(10, || app.is_serving()).await;
    proxy.hold();
    let reply = within_seconds(20, acme.users().list_users(ListUsersRequest::default())).await;
    assert_refused(reply, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    // The server has noticed: calls no longer wait.
    wait_until(10, || async { !app.is_serving().await }).await;
    for reply in within_seconds(20, call_each_kind(&acme)).await {
        assert_refused(reply.map(tonic::Response::new), Code::Unavailable, "STORE_UNAVAILABLE");
    }
    proxy.pass();
    wait_until(10, || async { call_each_kind(&acme).await.iter().all(Result::is_ok) }).await;
    wait_until(10, || app.is_serving()).await;
}

/// I10: the server replaces connections that Postgres terminated.
#[tokio::test]
async fn connections_that_postgres_terminates_are_replaced() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut owner_connection = app.owner_connection().await;
    for _ in 0..5 {
        let terminate = "select pg_terminate_backend(pid) from pg_stat_activity
                   where datname = current_database() and usename = 'tenantry_app'";
        sqlx::query(terminate)
            .execute(&mut owner_connection)
            .await
            .expect("the connections are terminated");
        wait_until(10, || async { call_each_kind(&acme).await.iter().all(Result::is_ok) }).await;
    }
}

/// I06: Postgres's disk is full (53100), simulated by a trigger.
#[tokio::test]
async fn with_a_full_disk_writes_return_unavailable_and_change_no_row() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let mut owner_connection = app.owner_connection().await;
    let failing_triggers = "create function disk_full() returns trigger language plpgsql as $$ begin
            raise exception 'could not extend file: No space left on device'
            using errcode = 'disk_full';
        end $$;
        create trigger disk_full before insert or update on roles execute function disk_full();
        create trigger disk_full before insert or update on sessions execute function disk_full();
        create trigger disk_full before insert or update on role_assignments execute function disk_full()";
    sqlx::raw_sql(failing_triggers)
        .execute(&mut owner_connection)
        .await
        .expect("the triggers are created");
    let counts_before = app.row_counts().await;

    let role_request = || CreateRoleRequest {
        name: "late".into(),
        level: RoleLevel::Member.into(),
        ..CreateRoleRequest::default()
    };
    let login_request = || LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        organization_slug: "acme".into(),
        ..LoginRequest::default()
    };
    let refresh_request = || RefreshRequest {
        refresh_token: acme.tokens.refresh_token.clone(),
        ..RefreshRequest::default()
    };
    let status = assert_refused(
        acme.roles().create_role(role_request()).await,
        Code::Unavailable,
        "STORE_UNAVAILABLE",
    );
    assert!(status.get_error_details().retry_info().is_some(), "{status:?}");
    assert!(!status.message().contains("space"), "{status:?}");
    assert_refused(
        acme.auth().login(login_request()).await,
        Code::Unavailable,
        "STORE_UNAVAILABLE",
    );
    assert_refused(
        acme.auth().refresh(refresh_request()).await,
        Code::Unavailable,
        "STORE_UNAVAILABLE",
    );
    assert!(acme.may("doc:read").await, "a read succeeds");
    assert_eq!(app.row_counts().await, counts_before);

    sqlx::raw_sql("drop function disk_full() cascade")
        .execute(&mut owner_connection)
        .await
        .expect("the triggers are dropped");
    acme.roles().create_role(role_request()).await.expect("created");
    acme.auth().login(login_request()).await.expect("signed in");
    acme.auth().refresh(refresh_request()).await.expect("the token was not used");
}

/// N34: each worker logs an outage of Postgres once, and once that it works again. The workers try
/// again several times in a second, but log only these two lines.
#[tokio::test]
async fn each_worker_logs_the_start_and_the_end_of_an_outage_of_postgres() {
    /// For each worker of the audit trail, its message at the start and at the end of an outage.
    const AUDIT_WORKERS: [[&str; 2]; 2] = [
        [
            "audit events can't be added to the hash chain; the worker tries again",
            "audit events are added to the hash chain again",
        ],
        [
            "the audit events to send can't be read; the worker tries again",
            "the audit events to send are read again",
        ],
    ];
    // Each of the two loops of the outbox logs its own outage.
    const MAILS: [&str; 2] = [
        "the outbox of mails can't be read; the worker tries again",
        "the outbox of mails is read again",
    ];
    let database = Cluster::get().new_database().await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&database);
    let settings = [("DATABASE_URL", url.as_str()), ("MAIL_URL", "smtp://localhost:1")];
    let server = ServerProcess::start(&settings).await;
    let counts = |messages: [&str; 2]| messages.map(|message| server.log_events(message).len());
    for outages in 1..=2 {
        proxy.cut();
        wait_until(20, || async {
            let mut failing = AUDIT_WORKERS.map(|worker| counts(worker)[0] == outages).into_iter();
            failing.all(|is_failing| is_failing) && counts(MAILS)[0] == 2 * outages
        })
        .await;
        proxy.pass();
        wait_until(20, || async {
            let mut working = AUDIT_WORKERS.map(|worker| counts(worker)[1] == outages).into_iter();
            working.all(|is_working| is_working) && counts(MAILS)[1] == 2 * outages
        })
        .await;
        for worker in AUDIT_WORKERS {
            assert_eq!(counts(worker), [outages; 2], "{worker:?}");
        }
        assert_eq!(counts(MAILS), [2 * outages; 2]);
    }
    // The log contains no raw error of Postgres.
    let raw_error = "error returned from database";
    let log = server.stop().await;
    assert!(
        !log.iter().any(|line| line.contains(raw_error) || line.contains("at line")),
        "{log:#?}"
    );
}
