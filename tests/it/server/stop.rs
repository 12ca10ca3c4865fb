//! A shutdown completes accepted calls. Open connections and hanging calls do not delay it.

use tenantry::proto::v1::{CreateRoleRequest, GetJwksRequest, ListRolesRequest, RoleLevel};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::harness::{Proxy, TestApp, Then, until, within};

/// J01: a shutdown completes accepted calls and refuses new calls.
#[tokio::test]
async fn a_call_in_progress_finishes_and_new_ones_are_refused() {
    let direct = TestApp::spawn().await;
    let acme = direct.tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on(&direct.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("SHUTDOWN_GRACE", "20s");
    })
    .await;
    let (addr, acme) = (app.addr, acme.on(&app.channel));

    proxy.when_sent("insert into roles", Then::Hold);
    let call = async {
        let request = CreateRoleRequest {
            name: "accepted".into(),
            level: RoleLevel::Member.into(),
            ..CreateRoleRequest::default()
        };
        acme.roles().create_role(request).await
    };
    let stop = async {
        proxy.until_held().await;
        app.stop().await;
    };
    let refusals = async {
        proxy.until_held().await;
        until(10, || async { TcpStream::connect(addr).await.is_err() }).await;
        let is_refused = || async { acme.auth().get_jwks(GetJwksRequest {}).await.is_err() };
        Box::pin(until(10, is_refused)).await;
        proxy.pass();
    };
    let (reply, (), ()) = within(20, async { tokio::join!(call, stop, refusals) }).await;
    reply.expect("it was accepted");
    let query = "select count(*) from roles where name = 'accepted'";
    let count: i64 =
        sqlx::query_scalar(query).fetch_one(&mut direct.owner().await).await.expect("a count");
    assert_eq!(count, 1);
}

/// J02: idle, half-open and unresponsive connections do not delay a shutdown.
#[tokio::test]
async fn open_connections_do_not_delay_a_shutdown() {
    let app = TestApp::spawn().await;
    app.tenant("acme").await;
    let silent = TcpStream::connect(app.addr).await.expect("connected");
    let mut half_open = TcpStream::connect(app.addr).await.expect("connected");
    half_open.write_all(b"PRI * HTTP/2.0\r\n").await.expect("sent");
    let mut unresponsive = TcpStream::connect(app.addr).await.expect("connected");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    unresponsive.write_all(preface).await.expect("sent");
    within(10, app.stop()).await;
    drop((silent, half_open, unresponsive));
}

/// J02: a call that never gets a reply from Postgres does not delay a shutdown.
#[tokio::test]
async fn a_hanging_call_does_not_delay_a_shutdown() {
    let direct = TestApp::spawn().await;
    let acme = direct.tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on(&direct.database, |values| values.set("DATABASE_URL", url)).await;
    let acme = acme.on(&app.channel);
    proxy.when_sent("from roles", Then::Hold);
    let mut roles = acme.roles();
    let stop = async {
        proxy.until_held().await;
        app.stop().await;
    };
    tokio::select! {
        reply = roles.list_roles(ListRolesRequest::default()) => panic!("it was held: {reply:?}"),
        () = within(15, stop) => {}
    }
}
