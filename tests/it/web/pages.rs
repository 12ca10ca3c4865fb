//! CORS: the pages that may call, and the preflight of browsers (Fetch, section 3.2).

use reqwest::{Client, Method, Response};
use tenantry::{
    config::{Config, Values},
    proto::v1::WhoAmIRequest,
};

use super::{
    ORIGIN, serving,
    spoken::{call, url},
};
use crate::harness::TestApp;

async fn preflight(app: &TestApp, origin: &str) -> Response {
    let ask = Client::new().request(Method::OPTIONS, url(app, "AuthService/WhoAmI"));
    ask.header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", "authorization,content-type,x-grpc-web")
        .send()
        .await
        .expect("an answer")
}

fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers().get(name).map(|value| value.to_str().expect("text"))
}

#[tokio::test]
async fn pages_of_allowed_origins_may_call_with_a_token_and_read_the_status() {
    let app = serving().await;
    for origin in [ORIGIN, "http://localhost:3000"] {
        let asked = preflight(&app, origin).await;
        assert_eq!(asked.status(), 200);
        assert_eq!(header(&asked, "access-control-allow-origin"), Some(origin));
        assert_eq!(header(&asked, "access-control-allow-methods"), Some("POST"));
        let allowed = header(&asked, "access-control-allow-headers").expect("headers");
        for name in ["authorization", "content-type", "grpc-timeout", "x-organization-slug"] {
            assert!(allowed.split(',').any(|allowed| allowed == name), "{allowed}");
        }
        assert!(header(&asked, "access-control-max-age").is_some());

        // Refusals also have the CORS headers, so that a page can read the reason.
        let sent = call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).header("origin", origin);
        let answer = sent.send().await.expect("an answer");
        assert_eq!(header(&answer, "access-control-allow-origin"), Some(origin));
        let read = header(&answer, "access-control-expose-headers").expect("headers");
        for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
            assert!(read.split(',').any(|read| read == name), "{read}");
        }
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_not_call() {
    let app = serving().await;
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
        let asked = preflight(&app, origin).await;
        assert_eq!(header(&asked, "access-control-allow-origin"), None, "{origin}");
        // A cached answer for one origin must not be given to another.
        assert!(header(&asked, "vary").is_some_and(|vary| vary.contains("origin")));
        // CORS preflight does not protect against DNS rebinding, so the Origin header of the
        // call is checked too.
        let sent = call(&app, "AuthService/WhoAmI", &WhoAmIRequest {}).header("origin", origin);
        assert_eq!(sent.send().await.expect("an answer").status(), 403, "{origin}");
    }
}

/// A browser sends cookies and client certificates by itself, for any page.
#[tokio::test]
async fn credentials_that_a_browser_adds_by_itself_are_not_allowed() {
    let app = serving().await;
    let asked = preflight(&app, ORIGIN).await;
    assert_eq!(header(&asked, "access-control-allow-credentials"), None);
}

#[test]
fn origins_must_be_written_as_browsers_send_them() {
    let mistake = |origins: &str| {
        let mut values = Values::default();
        values.set("GRPC_WEB_ORIGINS", origins);
        let mistakes = Config::check(&values).err().map(|error| error.to_string());
        mistakes.expect("other settings are missing").contains("GRPC_WEB_ORIGINS must be")
    };
    for good in ["off", "https://a.example", "http://localhost:3000,https://a.example:8443"] {
        assert!(!mistake(good), "{good}");
    }
    for bad in [
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
        assert!(mistake(bad), "{bad}");
    }
}
