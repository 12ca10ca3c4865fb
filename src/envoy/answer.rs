//! Writes the response to Envoy.

use envoy_types::{
    ext_authz::v3::pb::{
        CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue, HeaderValueOption,
        HttpResponse, HttpStatus, OkHttpResponse,
    },
    pb::google::rpc,
};
use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::gate::Caller;

/// Allows a request. The headers tell the service behind Envoy who the caller is. They replace
/// the headers of these names that the client sent.
pub(super) fn allowed(caller: &Caller) -> CheckResponse {
    let headers = vec![
        header("x-tenantry-tenant", caller.tenant().to_string()),
        header("x-tenantry-subject", caller.user().to_string()),
        header("x-tenantry-subject-type", caller.subject_type().name().to_owned()),
        header("x-tenantry-session", caller.session().to_string()),
    ];
    let ok = OkHttpResponse { headers, ..OkHttpResponse::default() };
    response(Code::Ok, "", HttpResponse::OkResponse(ok))
}

/// Denies a request, with the reason.
pub(super) fn denied(status: &Status) -> CheckResponse {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let body = json!({ "reason": reason, "message": status.message() }).to_string();
    let mut headers = vec![header("content-type", "application/json".into())];
    if let Some(challenge) = challenge(status.code()) {
        headers.push(header("www-authenticate", challenge.into()));
    }
    if let Some(wait) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        headers.push(header("retry-after", wait.as_secs().max(1).to_string()));
    }
    let status_line = Some(HttpStatus { code: http_code(status.code()) });
    let denied = DeniedHttpResponse { status: status_line, headers, body };
    response(status.code(), status.message(), HttpResponse::DeniedResponse(denied))
}

/// The `www-authenticate` challenge (RFC 6750, section 3).
fn challenge(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated => Some("Bearer error=\"invalid_token\""),
        Code::PermissionDenied => Some("Bearer error=\"insufficient_scope\""),
        _ => None,
    }
}

fn http_code(code: Code) -> i32 {
    match code {
        Code::Unauthenticated => 401,
        // A tenant that does not exist must look like another tenant of which the caller is no
        // member.
        Code::PermissionDenied | Code::NotFound => 403,
        Code::InvalidArgument | Code::OutOfRange => 400,
        Code::ResourceExhausted => 429,
        Code::Unavailable => 503,
        _ => 500,
    }
}

fn header(key: &str, value: String) -> HeaderValueOption {
    HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value, ..HeaderValue::default() }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        ..HeaderValueOption::default()
    }
}

fn response(code: Code, message: &str, http: HttpResponse) -> CheckResponse {
    let status = rpc::Status { code: code.into(), message: message.to_owned(), details: vec![] };
    CheckResponse { status: Some(status), http_response: Some(http), ..CheckResponse::default() }
}
