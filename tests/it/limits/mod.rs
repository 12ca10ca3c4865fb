//! Rate limits, and waits after wrong passwords.

mod guesses;
mod rates;

use std::time::Duration;

use tenantry::{config::Values, proto::v1::LoginRequest};
use tonic::{Code, Status};
use tonic_types::StatusExt;

pub use rates::server_with_rate_limit;

use crate::harness::{Client, TestApp, assert_refused};

/// Makes the server trust the `x-forwarded-for` header, so that tests can call from any address.
pub fn trusting_local_proxy(values: &mut Values) {
    values.set("TRUSTED_PROXIES", "127.0.0.1");
}

/// A random address in a network that no other test uses.
pub fn new_network_address() -> String {
    let random = uuid::Uuid::new_v4().into_bytes();
    format!("2001:db8:{:02x}{:02x}:{:02x}{:02x}::1", random[0], random[1], random[2], random[3])
}

/// A client without a token at this address.
pub fn client_from(app: &TestApp, address: &str) -> Client {
    app.anonymous().with_metadata("x-forwarded-for", address)
}

fn login_request(email: &str, slug: &str, password: &str) -> LoginRequest {
    LoginRequest {
        email: email.into(),
        password: password.into(),
        organization_slug: slug.into(),
        ..LoginRequest::default()
    }
}

/// Signs in with a wrong password. Returns the status.
async fn guess(client: &Client, email: &str, slug: &str) -> Status {
    let request = login_request(email, slug, "not this one");
    client.auth().login(request).await.expect_err("the password is wrong")
}

/// Asserts that the call was refused because of a limit. Returns the time to wait.
#[track_caller]
fn assert_rate_limited(status: Status) -> Duration {
    let status = assert_refused(
        Err::<tonic::Response<()>, _>(status),
        Code::ResourceExhausted,
        "RATE_LIMITED",
    );
    let retry_delay = status.get_details_retry_info().and_then(|info| info.retry_delay);
    retry_delay.filter(|delay| !delay.is_zero()).expect("a retry delay")
}

/// Asserts that the call was refused because of a wrong password.
#[track_caller]
fn assert_wrong_password(status: Status) {
    assert_refused(
        Err::<tonic::Response<()>, _>(status),
        Code::Unauthenticated,
        "INVALID_CREDENTIALS",
    );
}
