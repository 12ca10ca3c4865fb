//! Targets of the fuzzer: all texts that the server itself parses.

use regex::Regex;
use tenantry::proto::v1::{
    CheckRequest, CreateRoleRequest, ListRoleAssignmentsRequest, ListRolesRequest,
    ListSessionsRequest, ListUsersRequest, RoleLevel, WhoAmIRequest,
};
use tonic::{
    Code, Response, Status,
    metadata::{Ascii, MetadataValue},
};

use super::inputs::Corpus;
use crate::harness::{TestApp, precise, reason, unknown_id};

/// The answer, or `None` for a precise refusal of the input.
#[track_caller]
fn answer<T>(input: &str, reply: Result<Response<T>, Status>) -> Option<T> {
    match reply {
        Ok(reply) => Some(reply.into_inner()),
        Err(status) => {
            precise(&input.escape_debug().to_string(), &Err(status));
            None
        }
    }
}

/// G16, K02: the parser never panics, whatever the input.
#[tokio::test(flavor = "multi_thread")]
async fn metadata() {
    let app = TestApp::with(|values| values.set("TRUSTED_PROXIES", "127.0.0.1")).await;
    let acme = app.tenant("acme").await;
    let before = app.row_counts().await;
    let anonymous = acme.with_token("");
    Corpus::kept("metadata").try_each(async |input| {
        // Latin-1, because a header value may have any byte from 0x80 on.
        let bytes: Vec<u8> = input.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
        let Ok(value) = MetadataValue::<Ascii>::try_from(bytes.as_slice()) else { return };
        for key in [
            "x-tenant-id",
            "x-organization-slug",
            "x-request-id",
            "x-forwarded-for",
            "traceparent",
            "tracestate",
            "baggage",
        ] {
            let mut client = acme.clone();
            client.metadata.0.append(key, value.clone());
            answer(input, client.auth().who_am_i(WhoAmIRequest {}).await);
        }
        let mut client = anonymous.clone();
        client.metadata.0.append("authorization", value);
        let reply = client.auth().who_am_i(WhoAmIRequest {}).await;
        assert_eq!(reply.expect_err("no token").code(), Code::Unauthenticated);
    });
    assert_eq!(app.row_counts().await, before);
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("it serves");
}

/// G16: the parser never panics, whatever the input.
#[tokio::test(flavor = "multi_thread")]
async fn tokens() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let live = acme.tokens.access_token.clone();
    Corpus::kept("token").and(&live).and(&acme.tokens.refresh_token).try_each(async |input| {
        let question = CheckRequest {
            access_token: input.to_owned(),
            permission: "doc:read".into(),
            ..CheckRequest::default()
        };
        // An empty token means the caller itself.
        let decided = answer(input, acme.permissions().check(question).await);
        let allowed = decided.is_some_and(|decision| decision.allowed);
        assert_eq!(allowed, input == live || input.is_empty(), "{input}");
    });
}

/// G16, N14: the parser never panics, whatever the input.
#[tokio::test(flavor = "multi_thread")]
async fn page_tokens() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    for name in ["ada", "bob"] {
        acme.create_user_without_password(&format!("{name}@acme.test")).await;
    }
    let list = |page_token: &str| {
        let page_token = page_token.to_owned();
        let request = ListUsersRequest { page_size: 1, page_token, ..Default::default() };
        let mut users = acme.users();
        async move { users.list_users(request).await }
    };
    let token = list("").await.expect("a page").into_inner().next_page_token;
    Corpus::kept("page_token").and(&token).try_each(async |input| match list(input).await {
        Ok(_) => assert!(input.is_empty() || input == token, "{input}"),
        Err(status) => {
            assert!(!input.is_empty() && input != token, "{input}");
            assert_eq!(status.code(), Code::InvalidArgument, "{input}");
        }
    });
}

/// G16, G17: the parser never panics, whatever the input.
#[tokio::test(flavor = "multi_thread")]
async fn filters() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    Corpus::kept("filter").try_each(async |input| {
        let filter = input.to_owned();
        let request = ListUsersRequest { filter: filter.clone(), ..Default::default() };
        answer(input, acme.users().list_users(request).await);
        let request = ListRolesRequest { filter: filter.clone(), ..Default::default() };
        answer(input, acme.roles().list_roles(request).await);
        let request = ListSessionsRequest { filter: filter.clone(), ..Default::default() };
        answer(input, acme.sessions().list_sessions(request).await);
        let request = ListRoleAssignmentsRequest { filter, ..Default::default() };
        answer(input, acme.roles().list_role_assignments(request).await);
    });
}

/// F02, G16: the parser never panics, and accepts exactly the well-formed permissions.
#[tokio::test(flavor = "multi_thread")]
async fn permissions() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let concrete = Regex::new(r"\A[a-z0-9_.-]+:[a-z0-9_.-]+\z").expect("a pattern");
    let grant_pattern = Regex::new(r"\A(\*|[a-z0-9_.-]+):(\*|[a-z0-9_.-]+)\z").expect("a pattern");
    Corpus::kept("permission").try_each(async |input| {
        let fits = input.len() <= 200;
        let question = CheckRequest { permission: input.into(), ..CheckRequest::default() };
        let decided = answer(input, acme.permissions().check(question).await);
        assert_eq!(decided.is_some(), fits && concrete.is_match(input), "{input:?}");

        let role = CreateRoleRequest {
            name: unknown_id(),
            level: RoleLevel::Member.into(),
            permissions: vec![input.into()],
            ..CreateRoleRequest::default()
        };
        let made = answer(input, acme.roles().create_role(role).await);
        // Only system roles may have `*:*`.
        let may = fits && grant_pattern.is_match(input) && input != "*:*";
        assert_eq!(made.is_some(), may, "{input:?}");
    });
}

/// G16, N01, N03: the parser never panics, whatever the input.
#[tokio::test(flavor = "multi_thread")]
async fn scopes() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let user = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    Corpus::kept("scope").try_each(async |input| {
        let Ok(serde_json::Value::Object(scope)) = serde_json::from_str(input) else { return };
        let scope = tenantry::proto::json::to_struct(&scope);
        let request = tenantry::proto::v1::AssignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            scope: Some(scope.clone()),
            ..Default::default()
        };
        let assigned = answer(input, acme.roles().assign_role(request).await).is_some();
        let question = CheckRequest {
            user_id: user.clone(),
            permission: "doc:read".into(),
            scope: Some(scope.clone()),
            ..CheckRequest::default()
        };
        let decided = answer(input, acme.permissions().check(question).await);
        // A list in the assignment matches its values, so the question with the same list does
        // not match.
        let plain = scope
            .fields
            .values()
            .all(|value| !matches!(value.kind, Some(prost_types::value::Kind::ListValue(_))));
        if assigned && plain {
            assert!(decided.is_some_and(|decision| decision.allowed), "{input}");
        }
        // An assignment is removed by the same scope (N03), and only that assignment.
        let request = tenantry::proto::v1::UnassignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            scope: Some(scope),
            ..Default::default()
        };
        let taken = answer(input, acme.roles().unassign_role(request).await).is_some();
        assert_eq!(taken, assigned, "{input}");
    });
}

/// G16: the parser never panics, whatever the input.
#[tokio::test(flavor = "multi_thread")]
async fn consistency_tokens() {
    let app = TestApp::spawn().await;
    let acme = app.tenant("acme").await;
    let ask = |token: &str| {
        let question = CheckRequest {
            permission: "doc:read".into(),
            consistency_token: token.into(),
            ..CheckRequest::default()
        };
        let mut permissions = acme.permissions();
        async move { permissions.check(question).await }
    };
    let token = ask("").await.expect("a decision").into_inner().consistency_token;
    Corpus::kept("consistency_token").and(&token).try_each(async |input| match ask(input).await {
        Ok(_) => assert!(input.is_empty() || input == token, "{input}"),
        Err(status) => {
            let expected = ["CONSISTENCY_TOKEN_INVALID", "INVALID_FIELDS"];
            assert!(expected.contains(&reason(&status).as_str()), "{input}: {status:?}");
        }
    });
}
