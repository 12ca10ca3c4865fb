//! The time limit of a call: the client's deadline, at most the server's limit.

use std::time::Duration;

use http::HeaderMap;

/// The time limit of a call: the `grpc-timeout` of the call, at most the server's limit. If the
/// `grpc-timeout` is missing or malformed, the server's limit applies.
pub(super) fn of(headers: &HeaderMap, limit: Duration) -> Duration {
    let timeout = headers.get("grpc-timeout").and_then(|value| value.to_str().ok());
    timeout.and_then(read).map_or(limit, |timeout| timeout.min(limit))
}

/// Parses a `grpc-timeout`: up to eight digits and a unit (gRPC over HTTP/2, `Timeout`).
fn read(text: &str) -> Option<Duration> {
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
        assert_eq!(read("1H"), Some(Duration::from_hours(1)));
        assert_eq!(read("2M"), Some(Duration::from_mins(2)));
        assert_eq!(read("3S"), Some(Duration::from_secs(3)));
        assert_eq!(read("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(read("5u"), Some(Duration::from_micros(5)));
        assert_eq!(read("6n"), Some(Duration::from_nanos(6)));
        for malformed in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1 S", "ä", "1ä"]
        {
            assert_eq!(read(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn the_time_limit_is_at_most_the_limit_of_the_server() {
        let limit = Duration::from_secs(30);
        let with = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", http::HeaderValue::from_static(value));
            of(&headers, limit)
        };
        assert_eq!(with("1S"), Duration::from_secs(1));
        assert_eq!(with("1H"), limit);
        assert_eq!(with("soon"), limit);
        assert_eq!(of(&HeaderMap::new(), limit), limit);
    }
}
