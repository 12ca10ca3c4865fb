//! The fields of filters, and the conditions on them.

use time::OffsetDateTime;
use uuid::Uuid;

use super::text::Pattern;

/// A field that a filter may name.
pub struct Field {
    /// The name in the filter's text.
    pub name: &'static str,
    /// The type of the field, which decides how it is compared.
    pub kind: Kind,
}

/// The type of a field.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Text that people write. Matches the whole text, its beginning or a part of it, without
    /// regard to case and accents.
    Text,
    /// A lower-case word such as a slug. Matches like `Text`, but ignores only case.
    Word,
    /// Text that must be equal byte by byte.
    Exact,
    /// A UUID.
    Id,
    /// `true` or `false`.
    Flag,
    /// A time (RFC 3339), compared with `<`, `<=`, `>` and `>=`.
    Time,
    /// A value of an enum: the prefix of its names, which a filter may leave out, and a function
    /// from the whole name to the number.
    Choice(&'static str, fn(&str) -> Option<i32>),
}

pub(super) struct Condition {
    pub field: &'static str,
    pub test: Test,
}

pub(super) enum Test {
    Text { pattern: Pattern, written: String },
    Word(Pattern),
    Exact(String),
    Id(Uuid),
    Flag(bool),
    Time(Times),
    Choice(i32),
}

/// A range of times, in whole microseconds, which is the resolution of Postgres.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Times {
    /// Inclusive lower bound; `None` means unbounded.
    pub from: Option<OffsetDateTime>,
    /// Exclusive upper bound; `None` means unbounded.
    pub before: Option<OffsetDateTime>,
}
