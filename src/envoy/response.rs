//! Writes the response to Envoy.

use serde_json::json;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::proto::{
    CheckResponse, DeniedHttpResponse, HeaderAppendAction, HeaderValue, HeaderValueOption,
    HttpResponse, HttpStatus, OkHttpResponse,
};
use crate::{error, gate::Caller, proto::v1::ErrorReason};

/// The response that allows a request. The headers identify the caller for the service behind
/// Envoy, and replace headers with the same names from the client.
pub(super) fn allow(caller: &Caller) -> CheckResponse {
    let headers = vec![
        header("x-tenantry-tenant", caller.tenant().to_string()),
        header("x-tenantry-subject", caller.user().to_string()),
        header("x-tenantry-subject-type", caller.subject_type().name().to_owned()),
        header("x-tenantry-session", caller.session().to_string()),
    ];
    let ok = OkHttpResponse { headers };
    response(Code::Ok, "", HttpResponse::OkResponse(ok))
}

/// The response that denies a request on a route whose configuration is not valid. Envoy sent an
/// invalid message, so the status is `INVALID_ARGUMENT`. Envoy's client sent nothing wrong, so it
/// gets 500.
pub(super) fn deny_invalid_route() -> CheckResponse {
    let text = "the authorization of this route is not configured correctly";
    deny_with_http_code(&error::status(ErrorReason::InvalidFields, text), 500)
}

/// The response that denies a request, with the reason.
pub(super) fn deny(status: &Status) -> CheckResponse {
    deny_with_http_code(status, http_code(status.code()))
}

fn deny_with_http_code(status: &Status, http_code: i32) -> CheckResponse {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    let body = json!({ "reason": reason, "message": status.message() }).to_string();
    let mut headers = vec![header("content-type", "application/json".into())];
    if let Some(challenge) = challenge(status.code()) {
        headers.push(header("www-authenticate", challenge.into()));
    }
    if let Some(wait) = status.get_details_retry_info().and_then(|info| info.retry_delay) {
        headers.push(header("retry-after", wait.as_secs().max(1).to_string()));
    }
    let http_status = Some(HttpStatus { code: http_code });
    let denied = DeniedHttpResponse { status: http_status, headers, body };
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
        // The client must not learn whether a tenant exists. So an unknown tenant (NOT_FOUND) gets
        // the same code as a tenant of other subjects (PERMISSION_DENIED).
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
    }
}

fn response(code: Code, message: &str, http: HttpResponse) -> CheckResponse {
    let status =
        tonic_types::Status { code: code.into(), message: message.to_owned(), details: vec![] };
    CheckResponse { status: Some(status), http_response: Some(http) }
}
