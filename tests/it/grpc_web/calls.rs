//! gRPC-Web calls and their responses.

use http::Request;
use http_body_util::{BodyExt, Full};
use prost::Message;
use tenantry::proto::v1::{
    CheckRequest, CheckResponse, GetJwksRequest, LoginRequest, LoginResponse, RegisterRequest,
    WatchPermissionsRequest, WatchPermissionsResponse, WhoAmIRequest, WhoAmIResponse,
};
use tonic::{Code, body::Body};
use tonic_types::StatusExt;
use tower::ServiceExt;

use super::{
    grpc_web_client::{
        BINARY, GrpcWebResponse, TEXT, build_call, build_text_call, frame, method_url, send,
    },
    spawn_with_grpc_web,
};
use crate::{
    compression::{compressed_frame, gzip},
    harness::{PASSWORD, within_seconds},
};

#[tokio::test]
async fn a_browser_client_signs_in_and_checks_a_permission() {
    let app = spawn_with_grpc_web().await;
    let acme = app.create_tenant("acme").await;
    let login = LoginRequest {
        email: acme.email.clone(),
        password: PASSWORD.into(),
        ..LoginRequest::default()
    };
    let check = CheckRequest { permission: "user:read".into(), ..CheckRequest::default() };
    for login in [
        build_call(&app, "AuthService/Login", &login),
        build_text_call(&app, "AuthService/Login", &login),
    ] {
        let login = login.header("x-organization-slug", "acme");
        let tokens: LoginResponse = send(login).await.message();
        let check = build_call(&app, "PermissionService/Check", &check)
            .bearer_auth(&tokens.access_token)
            .header("x-organization-slug", "acme");
        let decision: CheckResponse = send(check).await.message();
        assert!(decision.allowed, "{decision:?}");
    }
}

/// Media types may have parameters and are case-insensitive (RFC 9110, section 8.3.1). A response
/// has the encoding of the request, unless `accept` asks for the other encoding.
#[tokio::test]
async fn the_response_has_the_encoding_that_the_client_accepts() {
    let app = spawn_with_grpc_web().await;
    for (content_type, accept, response_type) in [
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
        let build =
            if content_type.to_lowercase().contains("text") { build_text_call } else { build_call };
        let mut request =
            build(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).build().expect("a request");
        request.headers_mut().insert("content-type", content_type.parse().expect("a content type"));
        request.headers_mut().remove("accept");
        if let Some(accept) = accept {
            request.headers_mut().insert("accept", accept.parse().expect("content types"));
        }
        let response = reqwest::Client::new().execute(request).await.expect("a response");
        assert_eq!(response.status(), 200, "{content_type}");
        assert_eq!(response.headers()["content-type"], response_type, "{content_type} {accept:?}");
    }
}

#[tokio::test]
async fn grpc_web_works_over_http2_on_the_port_of_grpc() {
    let app = spawn_with_grpc_web().await;
    let acme = app.create_tenant("acme").await;
    let request = Request::post(method_url(&app, "AuthService/WhoAmI").as_str())
        .header("content-type", BINARY)
        .header("authorization", format!("Bearer {}", acme.tokens.access_token))
        .body(Body::new(Full::from(frame(&WhoAmIRequest {}))))
        .expect("a request");
    let response = app.channel.clone().oneshot(request).await.expect("a response");
    assert_eq!(response.headers()["content-type"], BINARY);
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let message: WhoAmIResponse = GrpcWebResponse::parse(parts.headers, &body).message();
    assert_eq!(message.tenant.map(|tenant| tenant.slug).as_deref(), Some("acme"));
}

/// The gate makes the same checks as for gRPC: token, tenant, field rules and sizes.
#[tokio::test]
async fn refusals_are_the_same_as_for_grpc() {
    let app = spawn_with_grpc_web().await;
    let acme = app.create_tenant("acme").await;
    let without_token = build_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {});
    let refusal = send(without_token).await.refusal();
    assert_eq!(refusal, (Code::Unauthenticated, "TOKEN_MISSING".into()));

    let two_tenants = build_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {})
        .bearer_auth(&acme.tokens.access_token)
        .header("x-tenant-id", &acme.tenant_id)
        .header("x-organization-slug", "acme");
    let refusal = send(two_tenants).await.refusal();
    assert_eq!(refusal, (Code::InvalidArgument, "INVALID_METADATA".into()));

    let invalid_email = RegisterRequest { email: "grace".into(), ..RegisterRequest::default() };
    let response = send(build_call(&app, "AuthService/Register", &invalid_email)).await;
    assert_eq!(response.refusal(), (Code::InvalidArgument, "INVALID_FIELDS".into()));
    let details = response.status.get_error_details();
    let fields = details.bad_request().map(|bad| &bad.field_violations).expect("fields");
    assert!(fields.iter().any(|violation| violation.field == "email"), "{fields:?}");

    let large_request = RegisterRequest { email: "x".repeat(70_000), ..RegisterRequest::default() };
    let refusal = send(build_call(&app, "AuthService/Register", &large_request)).await.refusal();
    assert_eq!(refusal, (Code::OutOfRange, "MESSAGE_TOO_LARGE".into()));

    let invalid_base64 = build_text_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {})
        .bearer_auth(&acme.tokens.access_token);
    for body in ["not base64!", "AAAAAAA", "AAAA*AA="] {
        let invalid_base64 = invalid_base64.try_clone().expect("a request").body(body);
        let refusal = send(invalid_base64).await.refusal();
        assert_eq!(refusal, (Code::InvalidArgument, "UNDECODABLE_MESSAGE".into()), "{body}");
    }

    let response = send(build_call(&app, "AuthService/Nothing", &WhoAmIRequest {})).await;
    assert_eq!(response.status.code(), Code::Unimplemented);
}

#[tokio::test]
async fn the_clients_request_id_is_returned() {
    let app = spawn_with_grpc_web().await;
    let request = build_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {})
        .header("x-request-id", "browser-7");
    let response = request.send().await.expect("a response");
    assert_eq!(response.headers()["x-request-id"], "browser-7");
}

#[tokio::test]
async fn a_stream_delivers_messages_while_it_is_open() {
    let app = spawn_with_grpc_web().await;
    let acme = app.create_tenant("acme").await;
    let watch =
        build_call(&app, "PermissionService/WatchPermissions", &WatchPermissionsRequest::default())
            .bearer_auth(&acme.tokens.access_token);
    let mut response = watch.send().await.expect("a response");
    acme.create_member("ada", &["user:read"]).await;
    let mut buffer = Vec::new();
    let first_change = async {
        loop {
            buffer
                .extend(response.chunk().await.expect("the stream did not fail").expect("a frame"));
            let mut rest = &buffer[..];
            while let Some((head, body)) = rest.split_first_chunk::<5>() {
                // A frame begins with a flag byte and a length of four bytes. The messages are
                // shorter than 64 KiB, so the last two bytes of the length are enough.
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
    assert!(!within_seconds(12, first_change).await.consistency_token.is_empty());
}

/// N43: a client that is not a browser may compress its messages.
#[tokio::test]
async fn a_message_may_be_compressed() {
    let app = spawn_with_grpc_web().await;
    let message = GetJwksRequest::default();
    let body = compressed_frame(&gzip(&message.encode_to_vec()));
    let call = build_call(&app, "AuthService/GetJwks", &message);
    let response = send(call.header("grpc-encoding", "gzip").body(body)).await;
    assert_eq!(response.status.code(), Code::Ok, "{response:?}");
}
