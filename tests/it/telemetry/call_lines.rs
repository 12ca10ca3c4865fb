//! The log line of a call.

use tenantry::proto::v1::{CreateRoleRequest, ListUsersRequest};
use tonic::Code;

use crate::harness::{Client, ServerProcess, assert_refused, wait_until};

/// N42: the line says who made the call, and why it was refused, without a client address.
#[tokio::test]
async fn the_line_of_a_call_has_the_tenant_the_subject_and_the_reason() {
    let server = ServerProcess::start(&[]).await;
    let acme = Client::anonymous(server.channel.clone()).sign_up_tenant("acme").await;
    let member = acme.create_member("ada", &[]).await;
    let reply = member.roles().create_role(CreateRoleRequest::default()).await;
    assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    acme.users().list_users(ListUsersRequest::default()).await.expect("users");
    let forged = acme.with_token("forged");
    assert!(forged.users().list_users(ListUsersRequest::default()).await.is_err());

    let lines_of = |method: &str| {
        let lines = server.logged("done").into_iter();
        let is_of = |line: &serde_json::Value| {
            line["method"].as_str().is_some_and(|path| path.ends_with(method))
        };
        lines.filter(is_of).collect::<Vec<_>>()
    };
    wait_until(10, || async { lines_of("/ListUsers").len() == 2 }).await;
    let refused = &lines_of("/CreateRole")[0];
    assert_eq!(refused["tenant"], acme.tenant_id.as_str());
    assert_eq!(refused["subject"], member.user_id.as_str());
    assert_eq!(refused["reason"], "PERMISSION_MISSING");
    let [listed, unknown] = &lines_of("/ListUsers")[..] else { panic!("two lines") };
    assert_eq!(listed["subject"], acme.user_id.as_str());
    assert!(listed.get("reason").is_none(), "{listed}");
    assert_eq!(unknown["reason"], "TOKEN_INVALID");
    assert!(unknown.get("tenant").is_none() && unknown.get("subject").is_none(), "{unknown}");
    let lines = server.stop().await;
    assert!(
        lines.iter().filter(|line| line.contains("done")).all(|line| !line.contains("127.0.0.1"))
    );
}
