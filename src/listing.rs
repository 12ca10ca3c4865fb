//! What all list calls share: pages by opaque token (AIP-158) and filters.

use std::{collections::BTreeMap, fmt::Debug};

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    proto::v1::ErrorReason,
};

const DEFAULT_SIZE: i64 = 50;
const MAX_SIZE: i64 = 1000;

/// The bytes of a token: the last id of the page before, then what binds it to
/// its request.
const ID: usize = 16;
const BINDING: usize = 16;

/// A page to read: rows by id, after one.
pub struct Page {
    /// The last id of the page before; the least id for the first page.
    pub after: Uuid,
    size: i64,
    binding: [u8; BINDING],
}

/// Reads a request's page. `request` is all that must not change between pages.
/// A token carries an id and nothing else that reaches SQL, so it needs no key;
/// row security holds whatever the id is.
///
/// # Errors
/// `INVALID_ARGUMENT` when the token was not made for this request.
pub fn page(size: i32, token: &str, request: &impl Debug) -> Result<Page> {
    let size = match i64::from(size) {
        0 => DEFAULT_SIZE,
        size => size.min(MAX_SIZE),
    };
    let hash = digest::digest(&digest::SHA256, format!("{request:?}").as_bytes());
    let mut binding = [0; BINDING];
    binding.copy_from_slice(&hash.as_ref()[..BINDING]);
    let after = match token {
        "" => Uuid::nil(),
        token => read_token(token, binding).ok_or_else(|| {
            Error::refused(
                ErrorReason::InvalidPageToken,
                "the page_token was not made for this request",
            )
        })?,
    };
    Ok(Page { after, size, binding })
}

fn read_token(token: &str, binding: [u8; BINDING]) -> Option<Uuid> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
    let (id, bound) = bytes.split_at_checked(ID)?;
    (bound == binding).then(|| Uuid::from_slice(id).ok()).flatten()
}

impl Page {
    /// How many rows to read: one more than the page has, to see whether there
    /// is another.
    #[must_use]
    pub fn limit(&self) -> i64 {
        self.size + 1
    }

    /// The same where, if `picks`, [`Page::pick`] leaves some of the rows out: then as
    /// many as the longest page has, whatever this one has.
    #[must_use]
    pub fn limit_of(&self, picks: bool) -> i64 {
        if picks { MAX_SIZE } else { self.limit() }
    }

    /// The page's rows, and the token of the next page; empty on the last.
    pub fn cut<T>(&self, rows: Vec<T>, id: impl Fn(&T) -> Uuid) -> (Vec<T>, String) {
        self.pick(rows, self.limit(), id, |_| true)
    }

    /// The page's rows among those that were read, `limit` at most, and the token of
    /// the next page.
    pub fn pick<T>(
        &self,
        rows: Vec<T>,
        limit: i64,
        id: impl Fn(&T) -> Uuid,
        is_meant: impl Fn(&T) -> bool,
    ) -> (Vec<T>, String) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let is_all = i64::try_from(rows.len()).is_ok_and(|count| count < limit);
        let (mut picked, mut looked_at) = (Vec::new(), None);
        for row in rows {
            if picked.len() == size {
                return (picked, looked_at.map(|last| self.token(last)).unwrap_or_default());
            }
            looked_at = Some(id(&row));
            if is_meant(&row) {
                picked.push(row);
            }
        }
        let more = looked_at.filter(|_| !is_all);
        (picked, more.map(|last| self.token(last)).unwrap_or_default())
    }

    /// The token of the page after an id.
    #[must_use]
    pub fn token(&self, after: Uuid) -> String {
        let mut bytes = after.as_bytes().to_vec();
        bytes.extend_from_slice(&self.binding);
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }
}

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

    #[test]
    fn a_page_token_is_bound_to_its_request() {
        let ids: Vec<_> = (1..=3u128).map(Uuid::from_u128).collect();
        let first = page(2, "", &("users", "a")).expect("a page");
        assert_eq!(first.limit(), 3);
        let (rows, token) = first.cut(ids.clone(), |id| *id);
        assert_eq!(rows, ids[..2]);
        assert_eq!(page(2, &token, &("users", "a")).expect("a page").after, ids[1]);
        assert!(page(2, &token, &("users", "b")).is_err());
        for bad in ["x", "AAAA", &token[1..], "' or 1=1--"] {
            assert!(page(2, bad, &("users", "a")).is_err(), "{bad}");
        }
        let (_, none) = first.cut(ids[..2].to_vec(), |id| *id);
        assert_eq!(none, "");
    }

    #[test]
    fn page_sizes_are_bounded() {
        assert_eq!(page(0, "", &()).expect("a page").limit(), DEFAULT_SIZE + 1);
        assert_eq!(page(i32::MAX, "", &()).expect("a page").limit(), MAX_SIZE + 1);
    }
}
