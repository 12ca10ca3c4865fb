//! The filters of lists.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::error::{Error, Result};

/// A list's filter: conditions `field = value`, joined by AND (of AIP-160, what
/// an index can answer).
pub struct Filter(BTreeMap<String, String>);

impl Filter {
    /// Reads a filter on these fields.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is malformed, or names another field or one
    /// twice.
    pub fn parse(text: &str, fields: &[&str]) -> Result<Self> {
        let mut conditions = BTreeMap::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let (field, after) = rest.split_once('=').ok_or_else(malformed)?;
            let field = field.trim();
            if !fields.contains(&field) {
                let text = format!("may only name {}", fields.join(", "));
                return Err(Error::field("filter", text));
            }
            let (value, after) = value(after.trim_start())?;
            if conditions.insert(field.to_owned(), value).is_some() {
                return Err(Error::field("filter", "must name each field once"));
            }
            rest = match after.trim_start() {
                "" => "",
                more => more
                    .strip_prefix("AND ")
                    .map(str::trim)
                    .filter(|rest| !rest.is_empty())
                    .ok_or_else(malformed)?,
            };
        }
        Ok(Self(conditions))
    }

    /// A field's condition as a LIKE pattern: a trailing `*` matches any
    /// ending, all else stands for itself.
    #[must_use]
    pub fn like(&self, field: &str) -> Option<String> {
        Some(self.pattern(field, str::to_owned)?.like())
    }

    /// A field's condition, of a field that is compared in the form that `key` gives.
    /// The form comes first: it may make wildcards of other characters.
    #[must_use]
    pub fn pattern(&self, field: &str, key: impl Fn(&str) -> String) -> Option<Pattern> {
        let value = self.0.get(field)?;
        Some(match value.strip_suffix('*') {
            Some(start) => Pattern::Start(key(start)),
            None => Pattern::Whole(key(value)),
        })
    }

    /// A field's condition as it stands.
    #[must_use]
    pub fn exactly(&self, field: &str) -> Option<&str> {
        self.0.get(field).map(String::as_str)
    }

    /// A field's condition as an id.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when it is no UUID.
    pub fn id(&self, field: &str) -> Result<Option<Uuid>> {
        let read = |text| {
            Uuid::try_parse(text)
                .map_err(|_| Error::field("filter", format!("{field} must be a UUID")))
        };
        self.exactly(field).map(read).transpose()
    }

    /// A field's condition as one of an enum's values, with or without the
    /// enum's prefix.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` when the enum has no such value.
    pub fn choice<E>(
        &self,
        field: &str,
        prefix: &str,
        from_name: impl Fn(&str) -> Option<E>,
    ) -> Result<Option<E>> {
        let Some(value) = self.0.get(field) else { return Ok(None) };
        let short = value.strip_prefix(prefix).unwrap_or(value);
        match from_name(&format!("{prefix}{short}")) {
            Some(choice) => Ok(Some(choice)),
            None => Err(Error::field("filter", format!("{field} has no such value"))),
        }
    }
}

/// What a text must be.
pub enum Pattern {
    /// Exactly this.
    Whole(String),
    /// This, and any ending.
    Start(String),
}

impl Pattern {
    /// The text, where it must be exactly that.
    #[must_use]
    pub fn whole(&self) -> Option<&str> {
        match self {
            Self::Whole(text) => Some(text),
            Self::Start(_) => None,
        }
    }

    /// Whether a text is like that.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        match self {
            Self::Whole(whole) => text == whole,
            Self::Start(start) => text.starts_with(start),
        }
    }

    /// As SQL's LIKE has it.
    fn like(&self) -> String {
        let (text, ending) = match self {
            Self::Whole(text) => (text, ""),
            Self::Start(text) => (text, "%"),
        };
        text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_") + ending
    }
}

/// A bare word up to white space, or text in double quotes, and what follows.
fn value(text: &str) -> Result<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(char::is_whitespace).unwrap_or(text.len());
        let (word, rest) = text.split_at(end);
        if word.is_empty() || word.contains('"') {
            return Err(malformed());
        }
        return Ok((word.to_owned(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, &quoted[at + 1..])),
            '\\' => value.push(chars.next().ok_or_else(malformed)?.1),
            c => value.push(c),
        }
    }
    Err(malformed())
}

fn malformed() -> Error {
    Error::field("filter", "must be conditions like name = \"Acme*\", joined by AND")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_conditions() {
        let parse = |text| Filter::parse(text, &["state", "name"]);
        let filter = parse(r#"state = ACTIVE AND name="a \"b\" AND_% c*""#).expect("a filter");
        assert_eq!(filter.like("state").as_deref(), Some("ACTIVE"));
        assert_eq!(filter.like("name").as_deref(), Some(r#"a "b" AND\_\% c%"#));
        assert!(parse("").expect("empty").like("name").is_none());
        for bad in [
            "x",
            "name",
            "name=",
            "email = a",
            "name = a AND",
            "name = a name = b",
            "name = \"a",
            "name = a AND name = b",
            "name = a OR state = b",
            "AND",
            "name = \"a\\",
            "= a",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
