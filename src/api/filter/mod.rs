//! Filters of lists: a subset of AIP-160. The grammar is in docs/api.md.

mod condition;
mod parser;
mod text;

use uuid::Uuid;

use condition::{Condition, Predicate};
pub use condition::{Field, Kind, TimeRange};
pub use text::Pattern;

use crate::error::{Error, Result};

/// A parsed filter: a list of conditions that must all hold.
pub struct Filter(Vec<Condition>);

impl Filter {
    /// Parses a filter on these fields.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` with a message that describes the mistake and marks it with a
    /// caret.
    pub fn parse(text: &str, fields: &[Field]) -> Result<Self> {
        let conditions = parser::parse_conditions(text, fields);
        conditions.map(Self).map_err(|mistake| Error::field("filter", mistake.message(text)))
    }

    /// Whether a row satisfies all text conditions. `value_of` returns the row's value of a field.
    /// The store checks all other conditions in SQL.
    pub fn matches_text<'a>(&self, value_of: impl Fn(&str) -> &'a str) -> bool {
        self.0.iter().all(|condition| match &condition.predicate {
            Predicate::Text { pattern, .. } => pattern.matches(value_of(condition.field)),
            _ => true,
        })
    }

    /// Whether the filter has a text condition.
    pub fn has_text_condition(&self) -> bool {
        self.0.iter().any(|condition| matches!(condition.predicate, Predicate::Text { .. }))
    }

    /// Removes the first condition that compares the whole text of a [`Kind::Text`] field. Returns
    /// the value as the client wrote it, so that the store can find this value with a database
    /// index. Without such a condition, returns `None`.
    pub fn take_whole_text(&mut self, field: &str) -> Option<String> {
        let is_whole_text = |condition: &Condition| {
            condition.field == field
                && matches!(
                    &condition.predicate,
                    Predicate::Text { pattern: Pattern::Whole(_), .. }
                )
        };
        let position = self.0.iter().position(is_whole_text)?;
        match self.0.swap_remove(position).predicate {
            Predicate::Text { raw_text, .. } => Some(raw_text),
            _ => None,
        }
    }

    /// The condition on a [`Kind::Word`] field, as a pattern for SQL's `LIKE`.
    #[must_use]
    pub fn like(&self, field: &str) -> Option<String> {
        self.find(field, |predicate| match predicate {
            Predicate::Word(pattern) => Some(pattern.like()),
            _ => None,
        })
    }

    /// The value that a [`Kind::Exact`] field must have.
    #[must_use]
    pub fn exact_value(&self, field: &str) -> Option<String> {
        self.find(field, |predicate| match predicate {
            Predicate::Exact(text) => Some(text.clone()),
            _ => None,
        })
    }

    /// The value that a [`Kind::Id`] field must have.
    #[must_use]
    pub fn id(&self, field: &str) -> Option<Uuid> {
        self.find(field, |predicate| match predicate {
            Predicate::Id(id) => Some(*id),
            _ => None,
        })
    }

    /// The value that a [`Kind::Flag`] field must have.
    #[must_use]
    pub fn flag(&self, field: &str) -> Option<bool> {
        self.find(field, |predicate| match predicate {
            Predicate::Flag(flag) => Some(*flag),
            _ => None,
        })
    }

    /// The value that a [`Kind::Enum`] field must have.
    #[must_use]
    pub fn enum_value<E: TryFrom<i32>>(&self, field: &str) -> Option<E> {
        self.find(field, |predicate| match predicate {
            Predicate::Enum(number) => E::try_from(*number).ok(),
            _ => None,
        })
    }

    /// The range of a [`Kind::Time`] field: the intersection of all conditions on the field.
    #[must_use]
    pub fn time_range(&self, field: &str) -> TimeRange {
        let mut intersection = TimeRange::default();
        for condition in self.0.iter().filter(|condition| condition.field == field) {
            if let Predicate::Time(range) = &condition.predicate {
                // `None` is less than every time, so the later lower bound is used.
                intersection.from = intersection.from.max(range.from);
                intersection.before = match (intersection.before, range.before) {
                    (Some(first), Some(second)) => Some(first.min(second)),
                    (first, second) => first.or(second),
                };
            }
        }
        intersection
    }

    /// Returns the first value that `value_of` returns for the predicates on a field.
    fn find<T>(&self, field: &str, value_of: impl Fn(&Predicate) -> Option<T>) -> Option<T> {
        let mut conditions = self.0.iter().filter(|condition| condition.field == field);
        conditions.find_map(|condition| value_of(&condition.predicate))
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::proto::v1::UserState;

    const FIELDS: &[Field] = &[
        Field { name: "name", kind: Kind::Text },
        Field { name: "slug", kind: Kind::Word },
        Field { name: "request_id", kind: Kind::Exact },
        Field { name: "id", kind: Kind::Id },
        Field { name: "verified", kind: Kind::Flag },
        Field { name: "time", kind: Kind::Time },
        Field {
            name: "state",
            kind: Kind::Enum("USER_STATE_", |name| UserState::from_str_name(name).map(i32::from)),
        },
    ];

    fn parse(text: &str) -> Filter {
        Filter::parse(text, FIELDS).unwrap_or_else(|error| panic!("{text}: {error:?}"))
    }

    /// The error message for an invalid filter: the mistake, the filter, and the caret.
    fn error_message(text: &str) -> String {
        match Filter::parse(text, FIELDS) {
            Err(Error::Fields(fields)) => fields[0].1.clone(),
            _ => panic!("the filter was accepted: {text}"),
        }
    }

    /// N10: a text condition compares the whole text, the beginning or a part.
    #[test]
    fn a_text_condition_matches_the_whole_text_its_beginning_or_a_part() {
        for (filter, text, matches) in [
            ("name = ada", "Ada", true),
            ("name = ada", "Ada L", false),
            ("name = \"ÅDA  l*\"", "ada  Lovelace", true),
            ("name : LOVE", "Ada Lovelace", true),
            ("name:love AND name:ada", "Ada Lovelace", true),
            ("name:love AND name:bob", "Ada Lovelace", false),
            (r#"name = "Star\*""#, "star*", true),
            (r#"name = "Star\*""#, "Starfish", false),
            (r#"name = "Star\**""#, "star*fish", true),
            (r#"name : "\"\\""#, r#"a "\ b"#, true),
            ("name = *", "anything", true),
            ("name = \"\"", "", true),
            ("name = \"\"", "a", false),
            ("name = josé", "Jose\u{301}", true),
            ("name:muller", "Max Müller", true),
            ("name = ％", "%", true),
            ("", "anything", true),
            ("  ", "anything", true),
        ] {
            assert_eq!(parse(filter).matches_text(|_| text), matches, "{filter}: {text}");
        }
    }

    #[test]
    fn a_filter_returns_the_values_of_its_conditions_by_field() {
        let id = Uuid::from_u128(7);
        let filter = parse(&format!(
            "state = ACTIVE AND id={id} AND verified = true AND slug=Ac_me* AND request_id = R-1"
        ));
        assert_eq!(filter.enum_value("state"), Some(UserState::Active));
        assert_eq!((filter.id("id"), filter.flag("verified")), (Some(id), Some(true)));
        assert_eq!(filter.like("slug").as_deref(), Some("ac\\_me%"));
        assert_eq!(parse("slug:50%").like("slug").as_deref(), Some("%50\\%%"));
        assert_eq!(filter.exact_value("request_id").as_deref(), Some("R-1"));
        assert_eq!(
            parse("state = USER_STATE_DISABLED").enum_value("state"),
            Some(UserState::Disabled)
        );
        // Without a condition on the field, there is no value.
        assert_eq!((filter.id("x"), parse("").like("slug")), (None, None));
        // The second condition compares only the beginning of the text, so it stays in the filter.
        let mut filter = parse("name = Ada AND name = ada*");
        assert_eq!(filter.take_whole_text("name").as_deref(), Some("Ada"));
        assert_eq!(filter.take_whole_text("name"), None);
    }

    #[test]
    fn time_conditions_become_ranges_of_whole_microseconds() {
        let range_of = |filter: &str| parse(filter).time_range("time");
        let at = datetime!(2026-01-02 03:04:05 UTC);
        let next = datetime!(2026-01-02 03:04:05.000001 UTC);
        for (filter, from, before) in [
            ("time >= 2026-01-02T03:04:05Z", Some(at), None),
            ("time > 2026-01-02T04:04:05+01:00", Some(next), None),
            ("time < 2026-01-02T03:04:05Z", None, Some(at)),
            ("time <= \"2026-01-02T03:04:05Z\"", None, Some(next)),
            ("time >= 2026-01-02T03:04:05.0000001Z", Some(next), None),
            ("time > 2026-01-02T03:04:05.0000001Z", Some(next), None),
            ("time < 2026-01-02T03:04:05.0000001Z", None, Some(next)),
            ("time <= 2026-01-02T03:04:05.0000001Z", None, Some(next)),
            (
                "time >= 2026-01-01T00:00:00Z AND time > 2026-01-02T03:04:05Z \
                 AND time < 2027-01-01T00:00:00Z AND time <= 2026-01-02T03:04:05Z",
                Some(next),
                Some(next),
            ),
        ] {
            assert_eq!(range_of(filter), TimeRange { from, before }, "{filter}");
        }
    }

    /// N10: an error message shows the mistake in the filter.
    #[test]
    fn an_error_message_marks_the_mistake_with_a_caret() {
        for (filter, caret_column, description) in [
            ("email = a", 0, "there is no such field"),
            ("= a", 0, "a field is missing"),
            ("name", 4, "name allows only these operators: `=` `:`"),
            ("name=", 5, "a value is missing"),
            ("name < a", 5, "name allows only these operators: `=` `:`"),
            ("state : A", 6, "state allows only these operators: `=`"),
            (
                "time = 2026-01-02T03:04:05Z",
                5,
                "time allows only these operators: `<` `<=` `>` `>=`",
            ),
            ("name = \"*x\"", 8, "a * is only allowed as the last character"),
            ("name = a*b", 8, "a * is only allowed as the last character"),
            (
                "name:a*",
                6,
                "`:` already matches any part of the text, so its value must not contain a *",
            ),
            ("name:\"\"", 5, "with `:` the value must not be empty"),
            ("request_id = a*", 14, "request_id allows no *"),
            (r#"name = "a\n""#, 9, r#"only " \ and * may follow a \"#),
            ("name = \"a", 7, "the closing double quote is missing"),
            ("name = \"a\\", 7, "the closing double quote is missing"),
            ("name = a\"b", 8, "put the text into double quotes"),
            ("name = (a)", 7, "put the text into double quotes"),
            ("name = a AND", 12, "a field is missing"),
            ("name = a name = b", 9, "only AND is allowed here"),
            ("name = a OR state = ACTIVE", 9, "only AND is allowed here"),
            ("name = a and name = b", 9, "only AND is allowed here"),
            ("name = a ANDname = b", 9, "only AND is allowed here"),
            ("id = x", 5, "id must be a UUID"),
            ("verified = yes", 11, "verified must be true or false"),
            ("time > yesterday", 7, "time must be a time"),
            ("state = GONE", 8, "state has no such value"),
            ("state = UNSPECIFIED", 8, "state has no such value"),
            ("state = ACTIVE AND state = ACTIVE", 19, "state may be named only once"),
        ] {
            let message = error_message(filter);
            let lines: Vec<_> = message.lines().collect();
            assert!(lines[0].starts_with(description), "{filter}: {message}");
            assert_eq!((lines[1], lines[2]), (filter, &*format!("{}^", " ".repeat(caret_column))));
            assert_eq!(lines.len(), 3);
        }
    }

    #[test]
    fn an_error_message_shows_only_the_part_of_a_long_filter_around_the_mistake() {
        let filter = format!("name = \"{}\n*x{}\"", "é".repeat(200), "y".repeat(200));
        let message = error_message(&filter);
        let lines: Vec<_> = message.lines().collect();
        assert_eq!(lines.len(), 3, "{message}");
        assert!(lines[1].starts_with("…é") && lines[1].ends_with("y…"), "{message}");
        // The caret at the end of the third line is below the `*` of the second line.
        assert_eq!(lines[1].chars().nth(lines[2].len() - 1), Some('*'));
    }
}
