//! The runtime part of field rules.
//!
//! The rules are protovalidate annotations in the `.proto` files. `build.rs` generates an
//! implementation of [`Validate`] for each message, with the semantics of protovalidate. A valid
//! message causes no allocation.

use std::{fmt, sync::LazyLock};

use regex::Regex;

/// The maximum number of violations in one response. Violations are sent in headers, and clients
/// refuse headers of more than 8 KiB.
const MAX_VIOLATIONS: usize = 32;

/// A message with field rules.
pub trait Validate {
    /// Adds all violations of this message to `violations`. `path` is the path of the message in
    /// the request.
    fn validate(&self, path: &Path<'_>, violations: &mut Violations);
}

/// Validates a whole message.
///
/// # Errors
///
/// Returns the violations, if there are any.
pub fn check(message: &impl Validate) -> Result<(), Violations> {
    let mut violations = Violations::default();
    message.validate(&Path::Root, &mut violations);
    if violations.0.is_empty() { Ok(()) } else { Err(violations) }
}

/// The path of a value in a request. A path needs no heap memory, and is formatted only for a
/// violation.
#[derive(Debug, Clone, Copy)]
pub enum Path<'a> {
    /// The request itself.
    Root,
    /// A field of the message at the parent path.
    Field(&'a Path<'a>, &'static str),
    /// An item of the list at the parent path.
    Item(&'a Path<'a>, usize),
}

impl Path<'_> {
    /// The path of a field of the message at `self`.
    #[must_use]
    pub fn field(&self, name: &'static str) -> Path<'_> {
        Path::Field(self, name)
    }

    /// The path of an item of the list at `self`.
    #[must_use]
    pub fn item(&self, index: usize) -> Path<'_> {
        Path::Item(self, index)
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(name),
            Path::Field(parent, name) => write!(f, "{parent}.{name}"),
            Path::Item(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The violations found so far. Each has a field path and a description, but never the value of
/// the field.
#[derive(Debug, Default)]
pub struct Violations(Vec<(String, String)>);

impl Violations {
    /// Adds a violation at `path`, unless `is_valid`. Violations above the limit of `MAX_VIOLATIONS` are
    /// dropped.
    pub fn ensure(&mut self, path: &Path<'_>, is_valid: bool, description: &str) {
        if !is_valid && self.0.len() < MAX_VIOLATIONS {
            self.0.push((path.to_string(), description.to_owned()));
        }
    }

    /// Returns the field path and description of each violation.
    #[must_use]
    pub fn into_vec(self) -> Vec<(String, String)> {
        self.0
    }
}

/// The pattern of a rule, compiled on first use.
pub type Pattern = LazyLock<Option<Regex>>;

/// Compiles a pattern. The build has compiled the same pattern, so the result is never `None`.
#[must_use]
pub fn compile(pattern: &str) -> Option<Regex> {
    Regex::new(pattern).ok()
}

/// Whether the pattern matches anywhere in `text`. Patterns that match the whole text use `^` and
/// `$`.
#[must_use]
pub fn matches(pattern: &Pattern, text: &str) -> bool {
    pattern.as_ref().is_some_and(|pattern| pattern.is_match(text))
}

/// The length of `text` in Unicode code points.
#[must_use]
pub fn chars(text: &str) -> usize {
    text.chars().count()
}

/// Whether `text` is a UUID: 8-4-4-4-12 hexadecimal digits in any case.
#[must_use]
pub fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_formatted_as_a_field_path() {
        let items = Path::Root.field("items");
        let item = items.item(3);
        assert_eq!(item.to_string(), "items[3]");
        assert_eq!(item.field("permission").to_string(), "items[3].permission");
        assert_eq!(Path::Root.field("a").field("b").to_string(), "a.b");
    }

    #[test]
    fn violations_beyond_the_limit_are_dropped() {
        let mut violations = Violations::default();
        violations.ensure(&Path::Root.field("name"), true, "must not be empty");
        for index in 0..=MAX_VIOLATIONS {
            violations.ensure(&Path::Root.field("ids").item(index), false, "must be a UUID");
        }
        let violations = violations.into_vec();
        assert_eq!(violations.len(), MAX_VIOLATIONS);
        assert_eq!(violations[0], ("ids[0]".to_owned(), "must be a UUID".to_owned()));
    }

    #[test]
    fn a_length_counts_code_points() {
        assert_eq!(chars("žluťoučký"), 9);
        // The emoji of an astronaut has three code points: a woman, a joiner and a rocket.
        assert_eq!(chars("👩‍🚀"), 3);
    }

    #[test]
    fn a_valid_pattern_matches_anywhere_in_the_text() {
        static DIGITS: Pattern = Pattern::new(|| compile("[0-9]+"));
        static INVALID: Pattern = Pattern::new(|| compile("["));
        assert!(matches(&DIGITS, "a1b"));
        assert!(!matches(&DIGITS, "ab"));
        assert!(!matches(&INVALID, "["), "an invalid pattern matches nothing");
    }

    #[test]
    fn only_the_hyphenated_form_is_a_uuid() {
        assert!(is_uuid("0197c0de-7a5b-7c3d-8e1f-0123456789AB"));
        for invalid in [
            "",
            "0197c0de7a5b7c3d8e1f0123456789ab",
            "{0197c0de-7a5b-7c3d-8e1f-0123456789a}",
            "0197c0de-7a5b-7c3d-8e1f-0123456789ag",
            "0197c0de-7a5b-7c3d-8e1f0-123456789ab",
            "0197c0de-7a5b-7c3d-8e1f-0123456789ab\n",
        ] {
            assert!(!is_uuid(invalid), "{invalid:?}");
        }
    }
}
