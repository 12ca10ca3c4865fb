//! A call that is cancelled while its transaction begins must not leave the connection inside
//! that transaction (launchbadge/sqlx#4393).

use tenantry::proto::v1::{CreateRoleRequest, GetJwksRequest, RoleLevel};
use tonic::Code;

use crate::harness::{Client, Cluster, Proxy, TestApp, Then, refused, within};

fn role(name: &str) -> CreateRoleRequest {
    CreateRoleRequest {
        name: name.into(),
        level: RoleLevel::Member.into(),
        ..CreateRoleRequest::default()
    }
}

/// A server with one connection to Postgres, through a proxy that can hold messages.
async fn server_with_one_connection() -> (TestApp, Proxy, Client) {
    let direct = TestApp::spawn().await;
    let acme = direct.tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on(&direct.database, |values| {
        values.set("DATABASE_URL", url);
        values.set("DATABASE_MAX_CONNECTIONS", "1");
    })
    .await;
    let acme = acme.on(&app.channel);
    (app, proxy, acme)
}

async fn role_names(app: &TestApp) -> Vec<String> {
    let query = "select name from roles where not is_system order by name";
    sqlx::query_scalar(query).fetch_all(&mut app.owner().await).await.expect("roles")
}

/// Whether Postgres's log contains this text.
fn logged(text: &str) -> bool {
    let log = Cluster::get().postgres_log();
    std::fs::read_to_string(log).expect("the log").contains(text)
}

/// D13: a cancelled transaction begin must not affect later writes.
#[tokio::test]
async fn a_cancelled_begin_does_not_lose_a_later_write() {
    let (app, proxy, acme) = server_with_one_connection().await;
    for (n, then) in [Then::Hold, Then::HoldReplies].into_iter().enumerate() {
        for (m, step) in ["begin;", "COMMIT"].into_iter().enumerate() {
            let name = format!("r{n}{m}");
            acme.roles().create_role(role(&format!("{name}-before"))).await.expect("made");
            proxy.when_sent(step, then);
            let cancelled = role(&format!("{name}-cancelled"));
            let mut roles = acme.roles();
            let call = roles.create_role(cancelled);
            tokio::select! {
                reply = call => panic!("{step} was held: {reply:?}"),
                () = proxy.until_held() => {}
            }
            // When the server has answered these calls, it has also received the cancellation.
            for _ in 0..2 {
                acme.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
            }
            proxy.pass();
            let after = format!("{name}-after");
            within(10, acme.roles().create_role(role(&after))).await.expect("acknowledged");
            assert!(role_names(&app).await.contains(&after), "{step}: acknowledged but not stored");
        }
    }
    // Cut the connection. Acknowledged writes must stay.
    let before = role_names(&app).await;
    proxy.cut();
    let reply = acme.roles().create_role(role("lost")).await;
    refused(reply, Code::Unavailable, "STORE_UNAVAILABLE");
    assert_eq!(role_names(&app).await, before);
    for symptom in ["already a transaction in progress", "current transaction is aborted"] {
        assert!(!logged(symptom), "{symptom}");
    }
}
