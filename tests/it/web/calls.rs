//! gRPC-Web calls and their answers.

use http::Request;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tenantry::proto::v1::{
    CheckRequest, CheckResponse, LoginRequest, LoginResponse, RegisterRequest,
    WatchPermissionsRequest, WatchPermissionsResponse, WhoAmIRequest, WhoAmIResponse,
};
use tonic::{Code, body::Body};
use tonic_types::StatusExt;
use tower::ServiceExt;

use super::{
    serving,
    spoken::{Answer, BINARY, TEXT, call, call_in_text, framed, url},
};
use crate::harness::{PASSWORD, within};

#[tokio::test]
async fn a_page_signs_in_and_checks_a_permission() {
    let app = serving().await;
    let acme = app.tenant("acme").await;
    let login = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        ..LoginRequest::default()
    };
    let check = CheckRequest { permission: "user:read".into(), ..CheckRequest::default() };
    for login in
        [call(&app, "AuthService/Login", &login), call_in_text(&app, "AuthService/Login", &login)]
    {
        let login = login.header("x-organization-slug", "acme");
        let tokens: LoginResponse = Answer::to(login).await.message();
        let check = call(&app, "PermissionService/Check", &check)
            .bearer_auth(&tokens.access_token)
            .header("x-organization-slug", "acme");
        let answer: CheckResponse = Answer::to(check).await.message();
        assert!(answer.allowed, "{answer:?}");
    }
}

/// Media types have parameters and are case-insensitive (RFC 9110, section 8.3.1). An answer
/// has the form of the request, unless `accept` asks for the other form.
#[tokio::test]
async fn the_answer_has_the_form_that_the_client_accepts() {
    let app = serving().await;
    for (kind, accept, answered) in [
        (BINARY, None, BINARY),
        ("application/grpc-web", Some("*/*"), BINARY),
        ("application/grpc-web+proto; charset=utf-8", None, BINARY),
        ("Application/gRPC-Web+Proto", None, BINARY),
        (TEXT, None, TEXT),
        ("application/grpc-web-text", Some("*/*"), TEXT),
        (TEXT, Some("application/grpc-web-text, */*"), TEXT),
        (TEXT, Some(BINARY), BINARY),
        (BINARY, Some(TEXT), TEXT),
    ] {
        let of = if kind.to_lowercase().contains("text") { call_in_text } else { call };
        let mut sent =
            of(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).build().expect("a request");
        sent.headers_mut().insert("content-type", kind.parse().expect("a kind"));
        sent.headers_mut().remove("accept");
        if let Some(accept) = accept {
            sent.headers_mut().insert("accept", accept.parse().expect("kinds"));
        }
        let answer = reqwest::Client::new().execute(sent).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{kind}");
        assert_eq!(answer.headers()["content-type"], answered, "{kind} {accept:?}");
    }
}

#[tokio::test]
async fn grpc_web_works_over_http2_on_the_port_of_grpc() {
    let app = serving().await;
    let acme = app.tenant("acme").await;
    let request = Request::post(url(&app, "AuthService/WhoAmI").as_str())
        .header("content-type", BINARY)
        .header("authorization", format!("Bearer {}", acme.tokens.access_token))
        .body(Body::new(Full::from(framed(&WhoAmIRequest {}))))
        .expect("a request");
    let response = app.channel.clone().oneshot(request).await.expect("an answer");
    assert_eq!(response.headers()["content-type"], BINARY);
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let answer: WhoAmIResponse = Answer::read(head.headers, &body).message();
    assert_eq!(answer.tenant.map(|tenant| tenant.slug).as_deref(), Some("acme"));
}

/// The gate's checks are the same as for gRPC: token, tenant, field rules and sizes.
#[tokio::test]
async fn refusals_are_the_same_as_for_grpc() {
    let app = serving().await;
    let acme = app.tenant("acme").await;
    let who = call(&app, "AuthService/WhoAmI", &WhoAmIRequest {});
    let refusal = Answer::to(who).await.refusal();
    assert_eq!(refusal, (Code::Unauthenticated, "TOKEN_MISSING".into()));

    let both = call(&app, "AuthService/WhoAmI", &WhoAmIRequest {})
        .bearer_auth(&acme.tokens.access_token)
        .header("x-tenant-id", &acme.tenant_id)
        .header("x-organization-slug", "acme");
    let refusal = Answer::to(both).await.refusal();
    assert_eq!(refusal, (Code::InvalidArgument, "INVALID_METADATA".into()));

    let wrong = RegisterRequest { email: "grace".into(), ..RegisterRequest::default() };
    let answer = Answer::to(call(&app, "AuthService/Register", &wrong)).await;
    assert_eq!(answer.refusal(), (Code::InvalidArgument, "INVALID_FIELDS".into()));
    let details = answer.status.get_error_details();
    let fields = details.bad_request().map(|bad| &bad.field_violations).expect("fields");
    assert!(fields.iter().any(|violation| violation.field == "email"), "{fields:?}");

    let large = RegisterRequest { email: "x".repeat(70_000), ..RegisterRequest::default() };
    let refusal = Answer::to(call(&app, "AuthService/Register", &large)).await.refusal();
    assert_eq!(refusal, (Code::OutOfRange, "MESSAGE_TOO_LARGE".into()));

    let broken = call_in_text(&app, "AuthService/WhoAmI", &WhoAmIRequest {})
        .bearer_auth(&acme.tokens.access_token);
    for body in ["not base64!", "AAAAAAA", "AAAA*AA="] {
        let broken = broken.try_clone().expect("a request").body(body);
        let refusal = Answer::to(broken).await.refusal();
        assert_eq!(refusal, (Code::InvalidArgument, "UNDECODABLE_MESSAGE".into()), "{body}");
    }

    let unknown = Answer::to(call(&app, "AuthService/Nothing", &WhoAmIRequest {})).await;
    assert_eq!(unknown.status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_clients_request_id_is_returned() {
    let app = serving().await;
    let who = call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).header("x-request-id", "page-7");
    let response = who.send().await.expect("an answer");
    assert_eq!(response.headers()["x-request-id"], "page-7");
}

#[tokio::test]
async fn a_stream_delivers_messages_while_it_is_open() {
    let app = serving().await;
    let acme = app.tenant("acme").await;
    let watch =
        call(&app, "PermissionService/WatchPermissions", &WatchPermissionsRequest::default())
            .bearer_auth(&acme.tokens.access_token);
    let mut response = watch.send().await.expect("an answer");
    acme.member("ada", &["user:read"]).await;
    let mut read = Vec::new();
    let messages = async {
        loop {
            read.extend(response.chunk().await.expect("goes on").expect("a frame"));
            let mut rest = &read[..];
            while let Some((head, body)) = rest.split_first_chunk::<5>() {
                let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
                let Some((frame, next)) = body.split_at_checked(length) else { break };
                let message = WatchPermissionsResponse::decode(frame).expect("a message");
                if !message.user_ids.is_empty() {
                    return message;
                }
                rest = next;
            }
        }
    };
    assert!(!within(12, messages).await.consistency_token.is_empty());
}
