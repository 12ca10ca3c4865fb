//! The position of the last row of a page, encoded for a page token. `page_token.rs` and
//! `mod.rs` encrypt the token, so that the token is valid only for the same list and caller
//! (`Pages::begin`, `Page::finish`).

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// The position of a row in the order of its list: by id, or by a time and then by id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The id of the row.
    pub id: Uuid,
    /// The time of the row, in whole microseconds; `None` in a list that is ordered only by id.
    pub at: Option<OffsetDateTime>,
}

impl Position {
    /// A position in a list that is ordered by id.
    #[must_use]
    pub fn by_id(id: Uuid) -> Self {
        Self { id, at: None }
    }

    /// Encodes the id, followed by the time if there is one, in microseconds since 1970.
    pub(super) fn encode(self) -> Vec<u8> {
        let mut bytes = self.id.as_bytes().to_vec();
        if let Some(at) = self.at {
            bytes.extend(microseconds(at).to_be_bytes());
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let at = match rest {
            [] => None,
            rest => {
                let since_epoch = Duration::microseconds(i64::from_be_bytes(rest.try_into().ok()?));
                Some(OffsetDateTime::UNIX_EPOCH.checked_add(since_epoch)?)
            }
        };
        Some(Self { id: Uuid::from_bytes(*id), at })
    }
}

/// Microseconds since 1970.
fn microseconds(at: OffsetDateTime) -> i64 {
    i64::try_from((at - OffsetDateTime::UNIX_EPOCH).whole_microseconds()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn decoding_returns_the_encoded_position() {
        let id = Uuid::from_u128(7);
        for at in [
            None,
            Some(OffsetDateTime::UNIX_EPOCH),
            Some(datetime!(2026-02-03 04:05:06.789012 UTC)),
            Some(datetime!(0001-01-01 0:00 UTC)),
            Some(datetime!(9999-12-31 23:59:59.999999 UTC)),
        ] {
            let position = Position { id, at };
            assert_eq!(Position::decode(&position.encode()), Some(position));
        }
        // A position has 16 bytes, or 24 bytes with a time.
        for invalid in [&[][..], &[0; 15], &[0; 17], &[0; 25], &[0xff; 25]] {
            assert_eq!(Position::decode(invalid), None, "{invalid:?}");
        }
        let out_of_range = [&[0; 16][..], &i64::MAX.to_be_bytes()].concat();
        assert_eq!(Position::decode(&out_of_range), None);
    }
}
