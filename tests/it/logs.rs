//! Log lines and traces of the server: they must not contain data that users send.

use std::time::Duration;

use prost_reflect::{DynamicMessage, Kind, ReflectMessage, Value};
use tenantry::proto::v1::{
    ChangePasswordRequest, CheckRequest, CreateUserRequest, IntrospectTokenRequest, LoginRequest,
    LookupUserRequest, RefreshRequest, RegisterRequest, UpdateUserRequest, WhoAmIRequest,
    create_user_request::Credential,
};
use tokio::time::timeout;

use crate::{
    harness::{Client, Cluster, ServerProcess, mask, methods, struct_of},
    telemetry::Collector,
};

/// A text in all data that the test sends. No log and no trace may contain it.
const CANARY: &str = "canary7f3a";
const PASSWORD: &str = "a canary7f3a of a password";
const EMAIL: &str = "canary7f3a@acme.test";

/// A text that, when logged without escapes, would end its line and begin a forged line.
const FORGED_LINE: &str = "canary7f3a\n{\"level\":\"INFO\",\"forged\":true}\n\u{1b}[31m\u{202e}";

async fn register(client: &Client) {
    let request = RegisterRequest {
        email: EMAIL.into(),
        password: PASSWORD.into(),
        organization_name: format!("The {CANARY} company"),
        organization_slug: "acme".into(),
        ..RegisterRequest::default()
    };
    client.auth().register(request.clone()).await.expect("registered");
    client.auth().register(request).await.expect_err("the slug is taken");
}

/// Makes sign-ins that fail. Each sign-in fails for a different cause.
async fn fail_to_sign_in(client: &Client) {
    for (email, password, slug) in [
        (EMAIL, "wrong canary7f3a", "acme"),
        ("unknown-canary7f3a@acme.test", PASSWORD, "acme"),
        (EMAIL, PASSWORD, "canary7f3a"),
        (FORGED_LINE, FORGED_LINE, FORGED_LINE),
    ] {
        let request = LoginRequest {
            email: email.into(),
            password: password.into(),
            organization_slug: slug.into(),
            device_name: FORGED_LINE.into(),
        };
        client.auth().login(request).await.expect_err("refused");
    }
}

/// Makes calls with the canary in their fields. Some of the calls fail.
async fn make_calls(admin: &Client) {
    let user = CreateUserRequest {
        email: format!("other-{CANARY}@acme.test"),
        display_name: FORGED_LINE.replace(|c: char| !c.is_ascii_graphic(), "."),
        credential: Some(Credential::Password(PASSWORD.into())),
        ..CreateUserRequest::default()
    };
    let created = admin.users().create_user(user.clone()).await.expect("created").into_inner();
    admin.users().create_user(user).await.expect_err("the email is taken");
    let update = UpdateUserRequest {
        user_id: created.user.expect("a user").id,
        display_name: Some(format!("{CANARY} again")),
        update_mask: mask(&["display_name"]),
        ..UpdateUserRequest::default()
    };
    admin.users().update_user(update).await.expect("updated");
    let email = EMAIL.to_owned();
    admin.users().lookup_user(LookupUserRequest { email }).await.expect("the user is found");
    let check = CheckRequest {
        access_token: admin.tokens.access_token.clone(),
        permission: "doc:read".into(),
        scope: struct_of(serde_json::json!({ "secret": CANARY })),
        ..CheckRequest::default()
    };
    admin.permissions().check(check).await.expect("decided");
    let wrong_password_change = ChangePasswordRequest {
        current_password: "wrong canary7f3a".into(),
        new_password: format!("{PASSWORD}, a new one"),
    };
    admin.auth().change_password(wrong_password_change).await.expect_err("refused");
}

/// Introspects and truncates tokens, refreshes, and reuses the refresh token.
async fn use_tokens(admin: &Client) {
    for token in [&admin.tokens.access_token, &admin.tokens.refresh_token] {
        let request = IntrospectTokenRequest { token: token.clone() };
        admin.auth().introspect_token(request).await.expect("introspected");
        let (truncated, _) = token.split_at(token.len() - 9);
        admin.with_token(truncated).auth().who_am_i(WhoAmIRequest {}).await.expect_err("refused");
    }
    let refresh_token = admin.tokens.refresh_token.clone();
    let request = RefreshRequest { refresh_token, request_id: String::new() };
    admin.auth().refresh(request.clone()).await.expect("refreshed");
    admin.auth().refresh(request).await.expect_err("the reuse is refused");
}

/// Calls every method with the canary in every text field. This breaks the field rules of most
/// methods.
async fn call_all_methods(client: &Client) {
    for method in methods() {
        let mut message = method.request();
        fill_text_fields(&mut message);
        timeout(Duration::from_secs(10), method.call(client, &message)).await.ok();
    }
}

fn fill_text_fields(message: &mut DynamicMessage) {
    for field in message.descriptor().fields() {
        if field.kind() == Kind::String && !field.is_list() && !field.is_map() {
            message.set_field(&field, Value::String(FORGED_LINE.into()));
        }
    }
}

/// K01: the log and the traces also contain no password hash, token, key or database URL.
/// K02: no sent text adds a field to a log line.
#[tokio::test]
async fn data_that_users_send_is_in_no_log_and_no_trace_at_any_level() {
    for level in ["info", "debug", "trace"] {
        let collector = Collector::start().await;
        let settings = [
            ("LOG_LEVEL", level),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url()),
            ("OTEL_TRACES_SAMPLER_ARG", "1"),
        ];
        let server = ServerProcess::start(&settings).await;
        let anonymous = Client::anonymous(server.channel.clone());
        register(&anonymous).await;
        fail_to_sign_in(&anonymous).await;
        let admin = anonymous.login("acme", EMAIL, PASSWORD).await;
        let admin_with_canary = admin.with_metadata("user-agent-note", CANARY);
        make_calls(&admin_with_canary).await;
        call_all_methods(&admin_with_canary).await;
        call_all_methods(&anonymous.with_metadata("x-tenant-id", CANARY)).await;
        let account = admin.create_service_account(CANARY, &[]).await;
        let key = admin.create_api_key(&account).await.secret;
        anonymous.exchange(&key).await;
        anonymous
            .with_token(&key)
            .auth()
            .who_am_i(WhoAmIRequest {})
            .await
            .expect_err("an API key is no access token");
        let second_session = anonymous.login("acme", EMAIL, PASSWORD).await;
        use_tokens(&second_session).await;
        let log = server.stop().await;
        let traces: Vec<_> = collector.all().iter().map(|span| format!("{span:?}")).collect();
        // Every method was called twice, and some methods more often.
        assert!(traces.len() > 2 * methods().len(), "{level}: {}", traces.len());

        assert!(log.len() > 2 * methods().len(), "{level}: {log:?}");
        for line in &log {
            let event: serde_json::Value = serde_json::from_str(line).expect(line);
            assert!(event.get("forged").is_none(), "{level}: {line}");
        }
        let signature = |token: &str| token.rsplit('.').next().expect("a signature").to_owned();
        let cluster = Cluster::get();
        for secret in [
            CANARY.to_owned(),
            key,
            signature(&admin.tokens.access_token),
            signature(&second_session.tokens.access_token),
            signature(&second_session.tokens.refresh_token),
            cluster.app_url(""),
            "argon2id".to_owned(),
            "PRIVATE KEY".to_owned(),
        ] {
            let leak = log.iter().chain(&traces).find(|line| line.contains(&secret));
            assert_eq!(leak, None, "{level}: {secret}");
        }
    }
}
