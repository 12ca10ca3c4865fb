//! Which calls may be retried, and the backoff between retries.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::Response;
use tonic::{Code, Status};

/// Wait before the first retry.
const FIRST_WAIT: Duration = Duration::from_millis(50);
/// Longest wait before a retry.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The backoff between the retries of a call. The number of retries is bounded only by the call's
/// deadline.
pub fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Whether a method changes nothing, so that a retry is always safe. A retry of a write is not
/// always safe: the first attempt may have succeeded although its response was lost. A program that
/// sets a `request_id` can retry the write itself.
pub fn is_read(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    let read_prefixes = ["Get", "List", "Lookup", "Introspect", "WhoAmI", "Check", "BatchCheck"];
    read_prefixes.iter().any(|prefix| method.starts_with(prefix))
}

/// Whether a method returns a stream of responses.
pub fn is_stream(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|method| method.starts_with("Watch"))
}

/// The status code in the headers of a response, if there is one. A gRPC server sends the status of
/// an error in the headers if it sends no message before the error.
pub fn status_in_headers<B>(response: &Response<B>) -> Option<Code> {
    Status::from_header_map(response.headers()).map(|status| status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_reads_are_retried() {
        for read in ["/tenantry.v1.PermissionService/Check", "/tenantry.v1.AuthService/GetJwks"] {
            assert!(is_read(read), "{read}");
        }
        for write in ["Refresh", "ExchangeApiKey", "CreateUser", "AssignRole", "Login"] {
            assert!(!is_read(&format!("/tenantry.v1.AnyService/{write}")), "{write}");
        }
    }
}
