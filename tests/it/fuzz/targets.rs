//! Targets of the fuzzer: all texts for which the server has a parser.

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
use crate::harness::{TestApp, assert_success_or_documented_error, reason, unique_text};

/// The response, or `None` when the input was refused with a documented reason.
#[track_caller]
fn response_if_accepted<T>(input: &str, reply: Result<Response<T>, Status>) -> Option<T> {
    match reply {
        Ok(reply) => Some(reply.into_inner()),
        Err(status) => {
            assert_success_or_documented_error(&input.escape_debug().to_string(), &Err(status));
            None
        }
    }
}

/// G16: the server survives every value of every header that it reads.
#[tokio::test(flavor = "multi_thread")]
async fn arbitrary_metadata_gets_a_documented_response() {
    let app = TestApp::with_settings(|values| values.set("TRUSTED_PROXIES", "127.0.0.1")).await;
    let acme = app.create_tenant("acme").await;
    let rows_before = app.row_counts().await;
    let anonymous = acme.with_token("");
    Corpus::load("metadata").try_inputs_and_mutations(async |input| {
        // Encodes the input as Latin-1: a header value may contain any byte from 0x80 to 0xFF.
        // Other characters become `?`.
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
            response_if_accepted(input, client.auth().who_am_i(WhoAmIRequest {}).await);
        }
        let mut client = anonymous.clone();
        client.metadata.0.append("authorization", value);
        let reply = client.auth().who_am_i(WhoAmIRequest {}).await;
        assert_eq!(
            reply.expect_err("a call without a valid token is refused").code(),
            Code::Unauthenticated
        );
    });
    assert_eq!(app.row_counts().await, rows_before);
    acme.auth().who_am_i(WhoAmIRequest {}).await.expect("the server still responds");
}

/// G16: every text gets a documented response.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_access_token_is_not_accepted() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let access_token = acme.tokens.access_token.clone();
    Corpus::load("token")
        .with_seed(&access_token)
        .with_seed(&acme.tokens.refresh_token)
        .try_inputs_and_mutations(async |input| {
            let request = CheckRequest {
                access_token: input.to_owned(),
                permission: "doc:read".into(),
                ..CheckRequest::default()
            };
            // An empty token means that the subject is the caller.
            let decision = response_if_accepted(input, acme.permissions().check(request).await);
            let allowed = decision.is_some_and(|decision| decision.allowed);
            assert_eq!(allowed, input == access_token || input.is_empty(), "{input}");
        });
}

/// G16, N14: a list accepts only an empty text and a token that the server issued.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_page_token_is_not_accepted() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    for name in ["ada", "bob"] {
        acme.create_user_without_password(&format!("{name}@acme.test")).await;
    }
    let list_page = |page_token: &str| {
        let page_token = page_token.to_owned();
        let request = ListUsersRequest { page_size: 1, page_token, ..Default::default() };
        let mut users = acme.users();
        async move { users.list_users(request).await }
    };
    let token = list_page("").await.expect("a page").into_inner().next_page_token;
    Corpus::load("page_token").with_seed(&token).try_inputs_and_mutations(async |input| {
        match list_page(input).await {
            Ok(_) => assert!(input.is_empty() || input == token, "{input}"),
            Err(status) => {
                assert!(!input.is_empty() && input != token, "{input}");
                assert_eq!(status.code(), Code::InvalidArgument, "{input}");
            }
        }
    });
}

/// G16: this applies to the filters of four lists.
#[tokio::test(flavor = "multi_thread")]
async fn an_arbitrary_filter_gets_a_documented_response() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    Corpus::load("filter").try_inputs_and_mutations(async |input| {
        let filter = input.to_owned();
        let request = ListUsersRequest { filter: filter.clone(), ..Default::default() };
        response_if_accepted(input, acme.users().list_users(request).await);
        let request = ListRolesRequest { filter: filter.clone(), ..Default::default() };
        response_if_accepted(input, acme.roles().list_roles(request).await);
        let request = ListSessionsRequest { filter: filter.clone(), ..Default::default() };
        response_if_accepted(input, acme.sessions().list_sessions(request).await);
        let request = ListRoleAssignmentsRequest { filter, ..Default::default() };
        response_if_accepted(input, acme.roles().list_role_assignments(request).await);
    });
}

/// F02, G16: every text that is not a well-formed permission is refused with a documented reason.
#[tokio::test(flavor = "multi_thread")]
async fn only_well_formed_permissions_are_accepted() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let permission_pattern = Regex::new(r"\A[a-z0-9_.-]+:[a-z0-9_.-]+\z").expect("a pattern");
    let grant_pattern = Regex::new(r"\A(\*|[a-z0-9_.-]+):(\*|[a-z0-9_.-]+)\z").expect("a pattern");
    Corpus::load("permission").try_inputs_and_mutations(async |input| {
        let is_short_enough = input.len() <= 200;
        let request = CheckRequest { permission: input.into(), ..CheckRequest::default() };
        let decision = response_if_accepted(input, acme.permissions().check(request).await);
        assert_eq!(
            decision.is_some(),
            is_short_enough && permission_pattern.is_match(input),
            "{input:?}"
        );

        let create_role = CreateRoleRequest {
            name: unique_text(),
            level: RoleLevel::Member.into(),
            permissions: vec![input.into()],
            ..CreateRoleRequest::default()
        };
        let role = response_if_accepted(input, acme.roles().create_role(create_role).await);
        // Only system roles may have `*:*`.
        let is_valid = is_short_enough && grant_pattern.is_match(input) && input != "*:*";
        assert_eq!(role.is_some(), is_valid, "{input:?}");
    });
}

/// G16: every scope gets a documented response.
/// N01: an assigned scope without lists matches itself in a decision.
/// N03: the same scope unassigns the assignment.
#[tokio::test(flavor = "multi_thread")]
async fn an_assignment_can_be_unassigned_with_the_same_scope() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let user = acme.create_user_without_password("ada@acme.test").await;
    let role = acme.create_role("reader", RoleLevel::Member, &["doc:read"]).await;
    Corpus::load("scope").try_inputs_and_mutations(async |input| {
        let Ok(serde_json::Value::Object(scope)) = serde_json::from_str(input) else { return };
        let scope = tenantry::proto::json::to_struct(&scope);
        let request = tenantry::proto::v1::AssignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            scope: Some(scope.clone()),
            ..Default::default()
        };
        let assigned =
            response_if_accepted(input, acme.roles().assign_role(request).await).is_some();
        let check = CheckRequest {
            user_id: user.clone(),
            permission: "doc:read".into(),
            scope: Some(scope.clone()),
            ..CheckRequest::default()
        };
        let decision = response_if_accepted(input, acme.permissions().check(check).await);
        // A list in an assignment's scope matches each value of the list, but not the list itself.
        // So a Check with the same scope does not match.
        let has_no_list = scope
            .fields
            .values()
            .all(|value| !matches!(value.kind, Some(prost_types::value::Kind::ListValue(_))));
        if assigned && has_no_list {
            assert!(decision.is_some_and(|decision| decision.allowed), "{input}");
        }
        // N03: the same scope unassigns the assignment.
        let request = tenantry::proto::v1::UnassignRoleRequest {
            user_id: user.clone(),
            role_id: role.clone(),
            scope: Some(scope),
            ..Default::default()
        };
        let unassigned =
            response_if_accepted(input, acme.roles().unassign_role(request).await).is_some();
        assert_eq!(unassigned, assigned, "{input}");
    });
}

/// G16: every text that is not a token of the server is refused with a documented reason.
#[tokio::test(flavor = "multi_thread")]
async fn an_altered_consistency_token_is_not_accepted() {
    let app = TestApp::spawn().await;
    let acme = app.create_tenant("acme").await;
    let check = |token: &str| {
        let request = CheckRequest {
            permission: "doc:read".into(),
            consistency_token: token.into(),
            ..CheckRequest::default()
        };
        let mut permissions = acme.permissions();
        async move { permissions.check(request).await }
    };
    let token = check("").await.expect("a decision").into_inner().consistency_token;
    Corpus::load("consistency_token").with_seed(&token).try_inputs_and_mutations(async |input| {
        match check(input).await {
            Ok(_) => assert!(input.is_empty() || input == token, "{input}"),
            Err(status) => {
                let expected = ["CONSISTENCY_TOKEN_INVALID", "INVALID_FIELDS"];
                assert!(expected.contains(&reason(&status).as_str()), "{input}: {status:?}");
            }
        }
    });
}
