//! What may be tried again, and when.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::Response;
use tonic::{Code, Status};

const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// The waits between the tries of a call; its deadline ends them.
pub fn waits() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(FIRST_WAIT)
        .with_max_delay(LONGEST_WAIT)
        .without_max_times()
        .with_jitter()
        .build()
}

/// Whether a method changes nothing, so that trying again is always safe. A write may
/// have been done although its answer got lost: whoever gives it a `request_id` may try
/// it again.
pub fn is_read(path: &str) -> bool {
    let method = path.rsplit('/').next().unwrap_or_default();
    let reads = ["Get", "List", "Lookup", "Introspect", "WhoAmI", "Check", "BatchCheck"];
    reads.iter().any(|read| method.starts_with(read))
}

/// Whether a method answers for as long as it stays open.
pub fn is_stream(path: &str) -> bool {
    path.rsplit('/').next().is_some_and(|method| method.starts_with("Watch"))
}

/// What an answer's head says, where it is a refusal: gRPC's servers send it there when
/// nothing else came before.
pub fn refusal<B>(response: &Response<B>) -> Option<Code> {
    Status::from_header_map(response.headers()).map(|status| status.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_not_tried_again() {
        for read in ["/tenantry.v1.PermissionService/Check", "/tenantry.v1.AuthService/GetJwks"] {
            assert!(is_read(read), "{read}");
        }
        for write in ["Refresh", "ExchangeApiKey", "CreateUser", "AssignRole", "Login"] {
            assert!(!is_read(&format!("/tenantry.v1.AnyService/{write}")), "{write}");
        }
    }
}
