//! The log line of a call.

use tenantry::proto::v1::{CreateRoleRequest, ListUsersRequest};
use tonic::Code;

use crate::harness::{Client, ServerProcess, assert_refused, wait_until};

/// N42: the line says who made the call and why the call was refused. The line has no client
/// address.
#[tokio::test]
async fn the_line_of_a_call_has_the_tenant_the_subject_and_the_reason() {
    let server = ServerProcess::start(&[]).await;
    let acme = Client::anonymous(server.channel.clone()).sign_up_tenant("acme").await;
    let member = acme.create_member("ada", &[]).await;
    let reply = member.roles().create_role(CreateRoleRequest::default()).await;
    assert_refused(reply, Code::PermissionDenied, "PERMISSION_MISSING");
    acme.users().list_users(ListUsersRequest::default()).await.expect("users");
    let client_with_forged_token = acme.with_token("forged");
    assert!(
        client_with_forged_token.users().list_users(ListUsersRequest::default()).await.is_err()
    );

    let log_lines_of = |method: &str| {
        let lines = server.log_events("done").into_iter();
        let is_of_method = |line: &serde_json::Value| {
            line["method"].as_str().is_some_and(|path| path.ends_with(method))
        };
        lines.filter(is_of_method).collect::<Vec<_>>()
    };
    wait_until(10, || async { log_lines_of("/ListUsers").len() == 2 }).await;
    let refused_line = &log_lines_of("/CreateRole")[0];
    assert_eq!(refused_line["tenant"], acme.tenant_id.as_str());
    assert_eq!(refused_line["subject"], member.user_id.as_str());
    assert_eq!(refused_line["reason"], "PERMISSION_MISSING");
    let [listed_line, line_without_caller] = &log_lines_of("/ListUsers")[..] else {
        panic!("two lines")
    };
    assert_eq!(listed_line["subject"], acme.user_id.as_str());
    assert!(listed_line.get("reason").is_none(), "{listed_line}");
    assert_eq!(line_without_caller["reason"], "TOKEN_INVALID");
    assert!(
        line_without_caller.get("tenant").is_none() && line_without_caller.get("subject").is_none(),
        "{line_without_caller}"
    );
    let lines = server.stop().await;
    assert!(
        lines.iter().filter(|line| line.contains("done")).all(|line| !line.contains("127.0.0.1"))
    );
}
