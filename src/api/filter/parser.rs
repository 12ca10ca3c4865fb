//! Parser of filters. Error messages show where the mistake is.

use std::iter;

use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    condition::{Condition, Field, Kind, Test, Times},
    text::{Pattern, folded},
};

/// Maximum number of characters of the filter that an error message shows before the mistake.
const MAX_BEFORE: usize = 40;

/// Maximum number of characters of the filter that an error message shows after the mistake.
const MAX_AFTER: usize = 40;

/// A mistake in a filter: the byte offset of the mistake, and a description.
pub(super) struct Mistake {
    at: usize,
    text: String,
}

type Result<T> = std::result::Result<T, Mistake>;

fn mistake<T>(at: usize, text: impl Into<String>) -> Result<T> {
    Err(Mistake { at, text: text.into() })
}

impl Mistake {
    /// The error message, in three lines: the description, the part of the filter around the
    /// mistake, and a caret.
    pub(super) fn shown_in(&self, filter: &str) -> String {
        let (before, after) = filter.split_at(self.at);
        let is_start_cut = before.chars().count() > MAX_BEFORE;
        let skipped = before.chars().count().saturating_sub(MAX_BEFORE);
        let ellipsis = |is_cut: bool| is_cut.then_some('…');
        let start: String =
            ellipsis(is_start_cut).into_iter().chain(before.chars().skip(skipped)).collect();
        let is_end_cut = after.chars().count() > MAX_AFTER;
        let end = after.chars().take(MAX_AFTER).chain(ellipsis(is_end_cut));
        let line: String = start.chars().chain(end).map(plain).collect();
        let caret: String = iter::repeat_n(' ', start.chars().count()).collect();
        format!("{}\n{line}\n{caret}^", self.text)
    }
}

/// Replaces a control character with a space, so that each character takes one column.
fn plain(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// Parses a filter into conditions on these fields.
pub(super) fn conditions(text: &str, fields: &[Field]) -> Result<Vec<Condition>> {
    let mut parser = Parser { text, at: 0 };
    let mut conditions: Vec<Condition> = Vec::new();
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(conditions);
    }
    loop {
        let at = parser.at;
        let condition = parser.condition(fields)?;
        let may_repeat = matches!(condition.test, Test::Text { .. } | Test::Time(_));
        if !may_repeat && conditions.iter().any(|other| other.field == condition.field) {
            return mistake(at, format!("{} may be named only once", condition.field));
        }
        conditions.push(condition);
        parser.skip_space();
        if parser.rest().is_empty() {
            return Ok(conditions);
        }
        parser.and()?;
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

/// A parsed value: the text, the byte offset of a final `*` if the value has one, and the byte
/// offset of the beginning of the value.
struct Value {
    text: String,
    star: Option<usize>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn and(&mut self) -> Result<()> {
        let after = self.rest().strip_prefix("AND");
        match after {
            Some(after) if after.is_empty() || after.starts_with(char::is_whitespace) => {
                self.at += "AND".len();
                self.skip_space();
                Ok(())
            }
            _ => mistake(self.at, "only AND is allowed here"),
        }
    }

    fn condition(&mut self, fields: &[Field]) -> Result<Condition> {
        let field = self.field(fields)?;
        self.skip_space();
        let at = self.at;
        let allowed = operators(field.kind);
        let operator = self.operator().filter(|operator| allowed.contains(operator));
        let Some(operator) = operator else {
            let list = allowed.join("` `");
            let text = format!("{} allows only these operators: `{list}`", field.name);
            return mistake(at, text);
        };
        self.skip_space();
        let value = self.value()?;
        Ok(Condition { field: field.name, test: test(field, operator, value)? })
    }

    fn field<'f>(&mut self, fields: &'f [Field]) -> Result<&'f Field> {
        let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let rest = self.rest();
        let name = &rest[..rest.find(|c| !is_of_name(c)).unwrap_or(rest.len())];
        let names = || fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
        if name.is_empty() {
            return mistake(self.at, format!("a field is missing: {}", names()));
        }
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            return mistake(self.at, format!("there is no such field: {}", names()));
        };
        self.at += name.len();
        Ok(field)
    }

    fn operator(&mut self) -> Option<&'static str> {
        let rest = self.rest();
        let operator =
            ["<=", ">=", "<", ">", "=", ":"].into_iter().find(|op| rest.starts_with(op))?;
        self.at += operator.len();
        Some(operator)
    }

    fn value(&mut self) -> Result<Value> {
        match self.rest().chars().next() {
            None => mistake(self.at, "a value is missing"),
            Some('"') => self.quoted(),
            Some(_) => self.word(),
        }
    }

    /// Parses a value without quotes. The value ends at white space.
    fn word(&mut self) -> Result<Value> {
        let (at, rest) = (self.at, self.rest());
        let word = &rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())];
        if let Some(special) = word.find(['"', '\\', '(', ')']) {
            let text = "put the text into double quotes, and \\ before \" and \\ in it";
            return mistake(at + special, text);
        }
        self.at += word.len();
        let Some(star) = word.find('*') else {
            return Ok(Value { text: word.to_owned(), star: None, at });
        };
        if star + 1 < word.len() {
            return mistake(at + star, STAR_NOT_LAST);
        }
        Ok(Value { text: word[..star].to_owned(), star: Some(at + star), at })
    }

    /// Parses a value in double quotes.
    fn quoted(&mut self) -> Result<Value> {
        let opening_quote = self.at;
        let mut value = Value { text: String::new(), star: None, at: opening_quote };
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            let at = opening_quote + offset;
            if let Some(star) = value.star.filter(|_| c != '"') {
                return mistake(star, STAR_NOT_LAST);
            }
            match c {
                '"' => {
                    self.at = at + 1;
                    return Ok(value);
                }
                '*' => value.star = Some(at),
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\' | '*'))) => value.text.push(escaped),
                    Some(_) => return mistake(at, r#"only " \ and * may follow a \"#),
                    None => break,
                },
                c => value.text.push(c),
            }
        }
        mistake(opening_quote, "the closing double quote is missing")
    }
}

const STAR_NOT_LAST: &str =
    "a * is only allowed as the last character; for a literal * write \\* in double quotes";

fn operators(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Text | Kind::Word => &["=", ":"],
        Kind::Exact | Kind::Id | Kind::Flag | Kind::Choice(..) => &["="],
        Kind::Time => &["<", "<=", ">", ">="],
    }
}

fn test(field: &Field, operator: &str, value: Value) -> Result<Test> {
    let (name, at) = (field.name, value.at);
    if let Kind::Text | Kind::Word = field.kind {
        let raw_text = value.text.clone();
        let pattern = pattern(operator, value)?;
        return Ok(match field.kind {
            Kind::Word => Test::Word(pattern.map(str::to_lowercase)),
            _ => Test::Text { pattern: pattern.map(folded), raw_text },
        });
    }
    if let Some(star) = value.star {
        return mistake(star, format!("{name} allows no *"));
    }
    let text = value.text;
    let parsed = match field.kind {
        Kind::Id => Uuid::try_parse(&text).ok().map(Test::Id).ok_or("must be a UUID"),
        Kind::Flag => text.parse().ok().map(Test::Flag).ok_or("must be true or false"),
        Kind::Time => times(operator, &text)
            .map(Test::Time)
            .ok_or("must be a time like 2026-01-31T12:00:00Z (RFC 3339)"),
        Kind::Choice(prefix, number) => {
            let name = format!("{prefix}{}", text.strip_prefix(prefix).unwrap_or(&text));
            let number = number(&name).filter(|number| *number != 0);
            number.map(Test::Choice).ok_or("has no such value")
        }
        Kind::Exact | Kind::Text | Kind::Word => Ok(Test::Exact(text)),
    };
    parsed.or_else(|text| mistake(at, format!("{name} {text}")))
}

fn pattern(operator: &str, value: Value) -> Result<Pattern> {
    match (operator, value.star) {
        (":", Some(star)) => {
            mistake(star, "with `:` the value must not have a *: it already matches any part")
        }
        (":", None) if value.text.is_empty() => {
            mistake(value.at, "with `:` the value must not be empty")
        }
        (":", None) => Ok(Pattern::Part(value.text)),
        (_, Some(_)) => Ok(Pattern::Start(value.text)),
        (_, None) => Ok(Pattern::Whole(value.text)),
    }
}

/// The range of a comparison with a time, rounded to whole microseconds.
fn times(operator: &str, text: &str) -> Option<Times> {
    let at = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let floor = at.replace_nanosecond(at.microsecond() * 1000).ok()?;
    let next = floor.checked_add(Duration::MICROSECOND)?;
    let ceiling = if floor == at { at } else { next };
    Some(match operator {
        "<" => Times { before: Some(ceiling), ..Times::default() },
        "<=" => Times { before: Some(next), ..Times::default() },
        ">" => Times { from: Some(next), ..Times::default() },
        _ => Times { from: Some(ceiling), ..Times::default() },
    })
}
