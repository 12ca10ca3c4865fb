//! `tenantry reset-password`

use std::process::Stdio;

use tenantry::proto::v1::{DisableUserRequest, LoginRequest, WhoAmIRequest};
use tokio::io::AsyncWriteExt;
use tonic::Code;

use super::{CommandOutput, binary_command, run, word_after};
use crate::harness::{Cluster, TestApp, assert_refused, wait_until};

/// The settings of the command, for the database of this server.
fn settings(app: &TestApp) -> [(&'static str, String); 2] {
    [("DATABASE_URL", Cluster::get().app_url(&app.database)), ("MASTER_KEY_PATH", app.master_key())]
}

async fn reset_password(app: &TestApp, arguments: &[&str]) -> CommandOutput {
    let settings = settings(app);
    let settings: Vec<_> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
    run(&[&["reset-password"], arguments].concat(), &settings).await
}

/// N38: the command resets the password of the platform's administrator, and of the administrator
/// of a tenant.
#[tokio::test]
async fn a_locked_out_administrator_gets_a_new_password_and_all_sessions_end() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let platform_admin = app.platform_admin().await;
    for (administrator, slug, email) in
        [(&platform_admin, "platform", "root@platform.test"), (&acme, "acme", acme.email.as_str())]
    {
        let output = reset_password(&app, &["--tenant", slug, "--email", email]).await;
        assert!(output.ok && output.out.contains("1 sessions ended"), "{output:?}");
        let password = word_after(&output.out, "password").to_owned();
        wait_until(10, || async {
            let reply = administrator.auth().who_am_i(WhoAmIRequest {}).await;
            reply.is_err_and(|status| status.code() == Code::Unauthenticated)
        })
        .await;
        let session = app.anonymous().login(slug, email, &password).await;
        assert!(session.may("user:read").await);
        let tenant = &session.tenant_id;
        assert_eq!(app.audit_event_count(tenant, "password_reset").await, 1);
    }
}

/// N38: a disabled user is enabled only on request.
#[tokio::test]
async fn a_disabled_user_is_enabled_only_on_request() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let ada = acme.create_member("ada", &[]).await;
    let disable = DisableUserRequest { user_id: ada.user_id.clone() };
    acme.users().disable_user(disable).await.expect("disabled");

    let arguments = ["--tenant", "acme", "--email", &ada.email];
    let output = reset_password(&app, &arguments).await;
    assert!(!output.ok && output.err.contains("add --enable") && output.out.is_empty());
    let output = reset_password(&app, &[&arguments[..], &["--enable"]].concat()).await;
    assert!(output.ok && output.out.contains("is enabled now"), "{output:?}");
    app.anonymous().login("acme", &ada.email, word_after(&output.out, "password")).await;
    for (kind, count) in [("user_enabled", 1), ("password_reset", 1)] {
        assert_eq!(app.audit_event_count(&acme.tenant_id, kind).await, count, "{kind}");
    }
    for (slug, email, error) in [
        ("nowhere", ada.email.as_str(), "there is no such tenant"),
        ("acme", "nobody@acme.test", "there is no such user"),
    ] {
        let output = reset_password(&app, &["--tenant", slug, "--email", email]).await;
        assert!(!output.ok && output.err.contains(error), "{output:?}");
    }
}

/// N38: the password on standard input must obey the rules, and is not printed.
#[tokio::test]
async fn a_password_on_standard_input_is_checked_and_not_printed() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    for (password, is_valid) in [("password1", false), ("a new and longer one", true), ("", false)]
    {
        let settings = settings(&app);
        let settings: Vec<_> =
            settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let arguments =
            ["reset-password", "--tenant", "acme", "--email", &acme.email, "--password-stdin"];
        let mut command = binary_command(&arguments, &settings);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().expect("the command starts");
        let mut input = process.stdin.take().expect("a pipe");
        input.write_all(format!("{password}\nnot this line\n").as_bytes()).await.expect("written");
        drop(input);
        let output = process.wait_with_output().await.expect("the command ends");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        assert_eq!(output.status.success(), is_valid, "{text}");
        assert!(password.is_empty() || !text.contains(password), "{text}");
        let sign_in = LoginRequest {
            organization_slug: "acme".into(),
            email: acme.email.clone(),
            password: password.into(),
            ..LoginRequest::default()
        };
        let reply = app.anonymous().auth().login(sign_in).await;
        if is_valid {
            reply.expect("signs in");
        } else if !password.is_empty() {
            assert_refused(reply, Code::Unauthenticated, "INVALID_CREDENTIALS");
        }
    }
}
