//! Time limits of calls.

use tenantry::proto::v1::GetUserRequest;
use tonic::Code;

use crate::harness::{TestApp, refused};

#[tokio::test]
async fn a_call_above_the_time_limit_gets_deadline_exceeded() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let hasty = TestApp::on(&app.database, |values| values.set("REQUEST_TIMEOUT", "300ms")).await;
    let mut owner = app.owner().await;
    let lock = sqlx::raw_sql("begin; lock table users in access exclusive mode");
    lock.execute(&mut owner).await.expect("the table is locked");

    for (what, client) in [
        ("the server's limit", acme.clone()),
        ("a deadline beyond it", acme.with("grpc-timeout", "1H")),
    ] {
        println!("{what}");
        let ask = GetUserRequest { user_id: acme.user_id.clone() };
        let reply = client.on(&hasty.channel).users().get_user(ask).await;
        refused(reply, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    }
    sqlx::raw_sql("rollback").execute(&mut owner).await.expect("unlocked");
    let ask = GetUserRequest { user_id: acme.user_id.clone() };
    acme.users().get_user(ask).await.expect("an answer again");
}
