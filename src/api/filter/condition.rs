//! Fields, and what a filter asks of them.

use time::OffsetDateTime;
use uuid::Uuid;

use super::text::Pattern;

/// A field that a filter may name.
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it is compared with.
    pub kind: Kind,
}

/// What a field is compared with, and how.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Text that people write: whole, by its beginning or by a part, in the form that
    /// ignores case and accents.
    Text,
    /// A word in lower case, like a slug: the same, without accents.
    Word,
    /// Text that must be the same to the byte.
    Exact,
    /// A UUID.
    Id,
    /// `true` or `false`.
    Flag,
    /// A time (RFC 3339), by `<`, `<=`, `>` and `>=`.
    Time,
    /// One of an enum's values, with or without this prefix; the number of a whole name.
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

/// A span of time, in whole microseconds as Postgres has them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Times {
    /// The first moment.
    pub from: Option<OffsetDateTime>,
    /// The first moment after it.
    pub before: Option<OffsetDateTime>,
}
