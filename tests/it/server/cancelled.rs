//! A call that is cancelled while its transaction begins must not leave the connection inside
//! that transaction (launchbadge/sqlx#4393).

use tenantry::proto::v1::{CreateRoleRequest, GetJwksRequest, RoleLevel};
use tonic::Code;

use crate::harness::{Client, Cluster, Fault, Proxy, TestApp, assert_refused, within_seconds};

fn role_request(name: &str) -> CreateRoleRequest {
    CreateRoleRequest {
        name: name.into(),
        level: RoleLevel::Member.into(),
        ..CreateRoleRequest::default()
    }
}

/// Starts a server with one connection to Postgres, through a proxy that can hold messages.
async fn start_server_with_one_connection() -> (TestApp, Proxy, Client) {
    let direct_app = TestApp::spawn().await;
    let acme = direct_app.create_tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct_app.database);
    let app = TestApp::on_database(&direct_app.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("DATABASE_MAX_CONNECTIONS", "1");
    })
    .await;
    let acme = acme.on_server(&app.channel);
    (app, proxy, acme)
}

async fn role_names(app: &TestApp) -> Vec<String> {
    let query = "select name from roles where not is_system order by name";
    sqlx::query_scalar(query).fetch_all(&mut app.owner_connection().await).await.expect("roles")
}

/// Whether Postgres's log contains this text.
fn log_contains(text: &str) -> bool {
    let log = Cluster::get().postgres_log();
    std::fs::read_to_string(log).expect("the log").contains(text)
}

/// D13: a cancelled transaction begin must not affect later writes.
#[tokio::test]
async fn a_cancelled_begin_does_not_lose_a_later_write() {
    let (app, proxy, acme) = start_server_with_one_connection().await;
    for (n, fault) in [Fault::Hold, Fault::HoldReplies].into_iter().enumerate() {
        for (m, statement) in ["begin;", "COMMIT"].into_iter().enumerate() {
            let name = format!("r{n}{m}");
            acme.roles()
                .create_role(role_request(&format!("{name}-before")))
                .await
                .expect("created");
            proxy.fault_when_sent(statement, fault);
            let request = role_request(&format!("{name}-cancelled"));
            let mut roles = acme.roles();
            let call = roles.create_role(request);
            tokio::select! {
                reply = call => panic!("{statement} was held: {reply:?}"),
                () = proxy.wait_until_held() => {}
            }
            // These calls use the same HTTP/2 connection as the cancelled call. So when the server
            // has answered them, it has also received the cancellation.
            for _ in 0..2 {
                acme.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
            }
            proxy.pass();
            let name_after = format!("{name}-after");
            within_seconds(10, acme.roles().create_role(role_request(&name_after)))
                .await
                .expect("created");
            assert!(
                role_names(&app).await.contains(&name_after),
                "{statement}: acknowledged but not stored"
            );
        }
    }
    // Cut the connection. The acknowledged writes must stay.
    let names_before = role_names(&app).await;
    proxy.cut();
    let reply = acme.roles().create_role(role_request("lost")).await;
    assert_refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(role_names(&app).await, names_before);
    for error_text in ["already a transaction in progress", "current transaction is aborted"] {
        assert!(!log_contains(error_text), "{error_text}");
    }
}
