//! The order of `ListUsers`.

use time::PrimitiveDateTime;
use uuid::Uuid;

use crate::{
    api::paging::Position,
    error::{Error, Result},
};

/// The field and the direction in which users are ordered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// The time of creation, which the id contains.
    Created(Direction),
    /// The time of the last sign-in. Users who never signed in come first in ascending
    /// order.
    SignedIn(Direction),
}

/// The direction of an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// Earliest first.
    Ascending,
    /// Latest first.
    Descending,
}

impl Order {
    /// The position before the first user in this order.
    #[must_use]
    pub fn start(self) -> Position {
        match self {
            Self::Created(Direction::Ascending) | Self::SignedIn(Direction::Ascending) => {
                Position::by_id(Uuid::nil())
            }
            Self::Created(Direction::Descending) | Self::SignedIn(Direction::Descending) => {
                Position { id: Uuid::max(), at: Some(PrimitiveDateTime::MAX.assume_utc()) }
            }
        }
    }

    /// Parses an `order_by`.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` for an unknown field or direction.
    pub fn parse(text: &str) -> Result<Self> {
        let mut words = text.split_whitespace();
        let with_direction = match words.next() {
            None | Some("create_time") => Self::Created,
            Some("last_sign_in_time") => Self::SignedIn,
            Some(_) => return Err(unknown_order()),
        };
        match (words.next(), words.next()) {
            (None | Some("asc"), None) => Ok(with_direction(Direction::Ascending)),
            (Some("desc"), None) => Ok(with_direction(Direction::Descending)),
            _ => Err(unknown_order()),
        }
    }
}

fn unknown_order() -> Error {
    let text = "must be create_time or last_sign_in_time, optionally followed by asc or desc";
    Error::field("order_by", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_by_is_a_field_with_an_optional_direction() {
        for (text, order) in [
            ("", Order::Created(Direction::Ascending)),
            ("create_time desc", Order::Created(Direction::Descending)),
            (" last_sign_in_time ", Order::SignedIn(Direction::Ascending)),
            ("last_sign_in_time  asc", Order::SignedIn(Direction::Ascending)),
            ("last_sign_in_time desc", Order::SignedIn(Direction::Descending)),
        ] {
            assert_eq!(Order::parse(text).expect(text), order);
        }
        for invalid in
            ["email", "desc", "create_time down", "create_time, id", "create_time asc asc"]
        {
            assert!(Order::parse(invalid).is_err(), "{invalid}");
        }
    }
}
