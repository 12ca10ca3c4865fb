//! Time limits of calls.

use tenantry::proto::v1::GetUserRequest;
use tonic::Code;

use crate::harness::{TestApp, assert_refused};

#[tokio::test]
async fn a_call_that_exceeds_the_time_limit_gets_deadline_exceeded() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let short_timeout_app =
        TestApp::on_database(&app.database, |values| values.set("REQUEST_TIMEOUT", "300ms")).await;
    let mut owner_connection = app.owner_connection().await;
    let lock = sqlx::raw_sql("begin; lock table users in access exclusive mode");
    lock.execute(&mut owner_connection).await.expect("the table is locked");

    for (what, client) in [
        ("the server's limit", acme.clone()),
        ("a deadline after the server's limit", acme.with_metadata("grpc-timeout", "1H")),
    ] {
        println!("{what}");
        let request = GetUserRequest { user_id: acme.user_id.clone() };
        let reply = client.on_server(&short_timeout_app.channel).users().get_user(request).await;
        assert_refused(reply, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    }
    sqlx::raw_sql("rollback").execute(&mut owner_connection).await.expect("the table is unlocked");
    let request = GetUserRequest { user_id: acme.user_id.clone() };
    acme.users().get_user(request).await.expect("a response after the unlock");
}
