//! The fields of filters, and the conditions on them.

use time::OffsetDateTime;
use uuid::Uuid;

use super::text::Pattern;

/// A field that a filter may contain.
pub struct Field {
    /// The name in the filter's text.
    pub name: &'static str,
    /// The type of the field, which decides how the field is compared.
    pub kind: Kind,
}

/// The type of a field.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Text that people write. A condition compares the whole text, its beginning or a part of it,
    /// and ignores case and accents.
    Text,
    /// A lower-case word such as a slug. A condition compares the word like `Text`, but ignores
    /// only case, not accents.
    Word,
    /// Text that must be equal byte by byte.
    Exact,
    /// A UUID.
    Id,
    /// `true` or `false`.
    Flag,
    /// A time (RFC 3339), compared with `<`, `<=`, `>` and `>=`.
    Time,
    /// A value of an enum. Contains the common prefix of the names of the values, which a filter
    /// may omit, and a function that converts a whole name to the number of the value.
    Enum(&'static str, fn(&str) -> Option<i32>),
}

/// One condition of a filter, on one field.
pub(super) struct Condition {
    pub field: &'static str,
    pub predicate: Predicate,
}

/// The test that a condition applies to the value of its field.
pub(super) enum Predicate {
    /// `raw_text` is the value as the client wrote it. `pattern` has the normalized value.
    Text {
        pattern: Pattern,
        raw_text: String,
    },
    Word(Pattern),
    Exact(String),
    Id(Uuid),
    Flag(bool),
    Time(TimeRange),
    Enum(i32),
}

/// A range of times, in whole microseconds, which is the resolution of Postgres.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TimeRange {
    /// Inclusive lower bound; `None` means unbounded.
    pub from: Option<OffsetDateTime>,
    /// Exclusive upper bound; `None` means unbounded.
    pub before: Option<OffsetDateTime>,
}
