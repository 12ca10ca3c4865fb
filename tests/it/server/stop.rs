//! A shutdown completes accepted calls. Open connections and hanging calls do not delay it.

use tenantry::proto::v1::{CreateRoleRequest, GetJwksRequest, ListRolesRequest, RoleLevel};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{Fault, Proxy, TestApp, wait_until, within_seconds};

/// J01: a shutdown completes accepted calls and refuses new calls.
#[tokio::test]
async fn a_shutdown_completes_a_call_in_progress_and_refuses_new_calls() {
    let direct_app = TestApp::spawn().await;
    let acme = direct_app.create_tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct_app.database);
    let app = TestApp::on_database(&direct_app.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("SHUTDOWN_GRACE", "20s");
    })
    .await;
    let (addr, acme) = (app.addr, acme.on_server(&app.channel));

    proxy.fault_when_sent("insert into roles", Fault::Hold);
    let call = async {
        let request = CreateRoleRequest {
            name: "accepted".into(),
            level: RoleLevel::Member.into(),
            ..CreateRoleRequest::default()
        };
        acme.roles().create_role(request).await
    };
    let stop = async {
        proxy.wait_until_held().await;
        app.stop().await;
    };
    let refusals = async {
        proxy.wait_until_held().await;
        wait_until(10, || async { TcpStream::connect(addr).await.is_err() }).await;
        let is_refused = || async { acme.auth().get_jwks(GetJwksRequest {}).await.is_err() };
        Box::pin(wait_until(10, is_refused)).await;
        proxy.pass();
    };
    let (reply, (), ()) = within_seconds(20, async { tokio::join!(call, stop, refusals) }).await;
    reply.expect("the accepted call succeeds");
    let query = "select count(*) from roles where name = 'accepted'";
    let count: i64 = sqlx::query_scalar(query)
        .fetch_one(&mut direct_app.owner_connection().await)
        .await
        .expect("a count");
    assert_eq!(count, 1);
}

/// J02: idle, half-open and unresponsive connections do not delay a shutdown.
#[tokio::test]
async fn open_connections_do_not_delay_a_shutdown() {
    let app = TestApp::spawn().await;
    app.create_tenant("acme").await;
    let idle_stream = TcpStream::connect(app.addr).await.expect("connected");
    let mut half_open_stream = TcpStream::connect(app.addr).await.expect("connected");
    // A part of the HTTP/2 preface.
    half_open_stream.write_all(b"PRI * HTTP/2.0\r\n").await.expect("sent");
    let mut unresponsive_stream = TcpStream::connect(app.addr).await.expect("connected");
    // The whole preface, with an empty SETTINGS frame.
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    unresponsive_stream.write_all(preface).await.expect("sent");
    within_seconds(10, app.stop()).await;
    drop((idle_stream, half_open_stream, unresponsive_stream));
}

/// J02: a call that never gets a reply from Postgres does not delay a shutdown.
#[tokio::test]
async fn a_hanging_call_does_not_delay_a_shutdown() {
    let direct_app = TestApp::spawn().await;
    let acme = direct_app.create_tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct_app.database);
    let app =
        TestApp::on_database(&direct_app.database, |values| values.set("DATABASE_URL", url)).await;
    let acme = acme.on_server(&app.channel);
    proxy.fault_when_sent("from roles", Fault::Hold);
    let mut roles = acme.roles();
    let stop = async {
        proxy.wait_until_held().await;
        app.stop().await;
    };
    tokio::select! {
        reply = roles.list_roles(ListRolesRequest::default()) => panic!("not held: {reply:?}"),
        () = within_seconds(15, stop) => {}
    }
}
