//! CORS: the origins whose pages may call the API, and the preflight of browsers (Fetch, section
//! 3.2).

use reqwest::{Client, Method, Response};
use tenantry::{
    config::{Config, Values},
    proto::v1::WhoAmIRequest,
};

use super::{
    ORIGIN,
    grpc_web_client::{build_call, method_url},
    spawn_with_grpc_web,
};
use crate::harness::TestApp;

async fn send_preflight(app: &TestApp, origin: &str) -> Response {
    let request = Client::new().request(Method::OPTIONS, method_url(app, "AuthService/WhoAmI"));
    request
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-grpc-web")
        .send()
        .await
        .expect("a response")
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_with_a_token_and_read_the_status() {
    let app = spawn_with_grpc_web().await;
    for origin in [ORIGIN, "http://localhost:3000"] {
        let preflight = send_preflight(&app, origin).await;
        assert_eq!(preflight.status(), 200);
        assert_eq!(header(&preflight, "access-control-allow-origin"), Some(origin));
        assert_eq!(header(&preflight, "access-control-allow-methods"), Some("POST"));
        let allowed_headers = header(&preflight, "access-control-allow-headers").expect("headers");
        for name in ["authorization", "content-type", "grpc-timeout", "x-organization-slug"] {
            assert!(allowed_headers.split(',').any(|allowed| allowed == name), "{allowed_headers}");
        }
        assert!(header(&preflight, "access-control-max-age").is_some());

        // Refusals also have the CORS headers, so that a page can read the reason.
        let call =
            build_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).header("origin", origin);
        let response = call.send().await.expect("a response");
        assert_eq!(header(&response, "access-control-allow-origin"), Some(origin));
        let exposed_headers = header(&response, "access-control-expose-headers").expect("headers");
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(exposed_headers.split(',').any(|exposed| exposed == name), "{exposed_headers}");
        }
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_not_call() {
    let app = spawn_with_grpc_web().await;
    for origin in [
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://evil-app.example.com",
        "HTTPS://APP.EXAMPLE.COM",
        "null",
        "*",
    ] {
        let preflight = send_preflight(&app, origin).await;
        assert_eq!(header(&preflight, "access-control-allow-origin"), None, "{origin}");
        // A cached response for one origin must not be used for another origin.
        assert!(header(&preflight, "vary").is_some_and(|vary| vary.contains("origin")));
        // CORS preflight does not protect against DNS rebinding, so the Origin header of the
        // call is checked too.
        let call =
            build_call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).header("origin", origin);
        assert_eq!(call.send().await.expect("a response").status(), 403, "{origin}");
    }
}

/// A browser sends cookies and client certificates by itself, for any page.
#[tokio::test]
async fn credentials_that_a_browser_adds_by_itself_are_not_allowed() {
    let app = spawn_with_grpc_web().await;
    let preflight = send_preflight(&app, ORIGIN).await;
    assert_eq!(header(&preflight, "access-control-allow-credentials"), None);
}

#[test]
fn origins_must_be_written_as_browsers_send_them() {
    let is_refused = |origins: &str| {
        let mut values = Values::default();
        values.set("GRPC_WEB_ORIGINS", origins);
        // All other settings are missing, so there is always an error.
        let error = Config::check(&values).err().map(|error| error.to_string());
        error.expect("an error").contains("GRPC_WEB_ORIGINS must be")
    };
    for valid in ["off", "https://a.example", "http://localhost:3000,https://a.example:8443"] {
        assert!(!is_refused(valid), "{valid}");
    }
    for invalid in [
        "",
        "*",
        "null",
        "a.example",
        "https://a.example/",
        "https://a.example:443",
        "https://A.example",
        "https://a.example/page",
        "https://*.example",
        "https://user@a.example",
        "file:///page",
        "https://a.example,",
        "https://a.example https://b.example",
    ] {
        assert!(is_refused(invalid), "{invalid}");
    }
}
