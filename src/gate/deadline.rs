//! The time limit of a call: the timeout that the client sent, but at most the server's limit.

use std::time::Duration;

use http::HeaderMap;

/// The time limit of a call: the `grpc-timeout` of the call, but at most `server_limit`. If the
/// `grpc-timeout` is missing or malformed, `server_limit` applies.
pub(super) fn time_limit(headers: &HeaderMap, server_limit: Duration) -> Duration {
    let timeout = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
    timeout.and_then(parse).map_or(server_limit, |timeout| timeout.min(server_limit))
}

/// Parses a `grpc-timeout`: up to eight digits and a unit ("gRPC over HTTP2", the rule "Timeout").
fn parse(text: &str) -> Option<Duration> {
    const MAX_DIGITS: usize = 8;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > MAX_DIGITS || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(count * 60 * 60)),
        "M" => Some(Duration::from_secs(count * 60)),
        "S" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_millis(count)),
        "u" => Some(Duration::from_micros(count)),
        "n" => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_one_to_eight_digits_and_a_unit() {
        assert_eq!(parse("1H"), Some(Duration::from_hours(1)));
        assert_eq!(parse("2M"), Some(Duration::from_mins(2)));
        assert_eq!(parse("3S"), Some(Duration::from_secs(3)));
        assert_eq!(parse("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(parse("5u"), Some(Duration::from_micros(5)));
        assert_eq!(parse("6n"), Some(Duration::from_nanos(6)));
        for malformed in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "ä", "1ä"]
        {
            assert_eq!(parse(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn the_time_limit_is_at_most_the_limit_of_the_server() {
        let server_limit = Duration::from_secs(30);
        let limit_for = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(value));
            time_limit(&headers, server_limit)
        };
        assert_eq!(limit_for("1S"), Duration::from_secs(1));
        assert_eq!(limit_for("1H"), server_limit);
        assert_eq!(limit_for("soon"), server_limit);
        assert_eq!(time_limit(&HeaderMap::new(), server_limit), server_limit);
    }
}
