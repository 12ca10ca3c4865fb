//! Parser of filters. Error messages show where the mistake is.

use std::iter;

use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

use super::{
    condition::{Condition, Field, Kind, Predicate, TimeRange},
    text::{Pattern, fold},
};

/// Maximum number of characters of the filter that an error message shows before the mistake.
const MAX_BEFORE: usize = 40;

/// Maximum number of characters of the filter that an error message shows after the mistake.
const MAX_AFTER: usize = 40;

/// A mistake in a filter: the byte offset in the filter, and a description.
pub(super) struct Mistake {
    offset: usize,
    text: String,
}

type Result<T> = std::result::Result<T, Mistake>;

fn fail<T>(offset: usize, text: impl Into<String>) -> Result<T> {
    Err(Mistake { offset, text: text.into() })
}

impl Mistake {
    /// The error message, in three lines: the description, the part of the filter around the
    /// mistake, and a caret.
    pub(super) fn message(&self, filter: &str) -> String {
        let (before, after) = filter.split_at(self.offset);
        let skipped = before.chars().count().saturating_sub(MAX_BEFORE);
        let is_start_cut = skipped > 0;
        let ellipsis = |is_cut: bool| is_cut.then_some('…');
        let start: String =
            ellipsis(is_start_cut).into_iter().chain(before.chars().skip(skipped)).collect();
        let is_end_cut = after.chars().count() > MAX_AFTER;
        let end = after.chars().take(MAX_AFTER).chain(ellipsis(is_end_cut));
        let line: String = start.chars().chain(end).map(printable).collect();
        let caret: String = iter::repeat_n(' ', start.chars().count()).collect();
        format!("{}\n{line}\n{caret}^", self.text)
    }
}

/// Replaces a control character, such as a line break, with a space. So the filter stays one line,
/// in which each character has one column.
fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// Parses a filter into conditions on these fields.
pub(super) fn parse_conditions(text: &str, fields: &[Field]) -> Result<Vec<Condition>> {
    let mut parser = Parser { text, position: 0 };
    let mut conditions: Vec<Condition> = Vec::new();
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(conditions);
    }
    loop {
        let condition_start = parser.position;
        let condition = parser.parse_condition(fields)?;
        let may_repeat = matches!(condition.predicate, Predicate::Text { .. } | Predicate::Time(_));
        if !may_repeat && conditions.iter().any(|other| other.field == condition.field) {
            let text = format!("{} may be named only once", condition.field);
            return fail(condition_start, text);
        }
        conditions.push(condition);
        parser.skip_space();
        if parser.rest().is_empty() {
            return Ok(conditions);
        }
        parser.parse_and()?;
    }
}

struct Parser<'a> {
    /// The whole filter.
    text: &'a str,
    /// The byte offset of the text that is not parsed yet.
    position: usize,
}

/// A parsed value.
struct Value {
    /// The text without quotes, escapes and a final `*`.
    text: String,
    /// The byte offset of the final `*` in the filter; `None` when the value has no `*`.
    star: Option<usize>,
    /// The byte offset at which the value starts in the filter.
    start: usize,
}

impl<'a> Parser<'a> {
    /// The text that is not parsed yet.
    fn rest(&self) -> &'a str {
        &self.text[self.position..]
    }

    fn skip_space(&mut self) {
        self.position = self.text.len() - self.rest().trim_start().len();
    }

    fn parse_and(&mut self) -> Result<()> {
        match self.rest().strip_prefix("AND") {
            Some(after) if after.is_empty() || after.starts_with(char::is_whitespace) => {
                self.position += "AND".len();
                self.skip_space();
                Ok(())
            }
            _ => fail(self.position, "only AND is allowed here"),
        }
    }

    fn parse_condition(&mut self, fields: &[Field]) -> Result<Condition> {
        let field = self.parse_field(fields)?;
        self.skip_space();
        let operator_start = self.position;
        let allowed = allowed_operators(field.kind);
        let operator = self.parse_operator().filter(|operator| allowed.contains(operator));
        let Some(operator) = operator else {
            let list = allowed.join("` `");
            let text = format!("{} allows only these operators: `{list}`", field.name);
            return fail(operator_start, text);
        };
        self.skip_space();
        let value = self.parse_value()?;
        Ok(Condition { field: field.name, predicate: build_predicate(field, operator, value)? })
    }

    fn parse_field<'f>(&mut self, fields: &'f [Field]) -> Result<&'f Field> {
        let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let rest = self.rest();
        let name = &rest[..rest.find(|c| !is_name_char(c)).unwrap_or(rest.len())];
        let names = || fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ");
        if name.is_empty() {
            return fail(self.position, format!("a field is missing, one of: {}", names()));
        }
        let Some(field) = fields.iter().find(|field| field.name == name) else {
            return fail(
                self.position,
                format!("there is no such field; the fields are: {}", names()),
            );
        };
        self.position += name.len();
        Ok(field)
    }

    fn parse_operator(&mut self) -> Option<&'static str> {
        let rest = self.rest();
        let operator =
            ["<=", ">=", "<", ">", "=", ":"].into_iter().find(|op| rest.starts_with(op))?;
        self.position += operator.len();
        Some(operator)
    }

    fn parse_value(&mut self) -> Result<Value> {
        match self.rest().chars().next() {
            None => fail(self.position, "a value is missing"),
            Some('"') => self.parse_quoted(),
            Some(_) => self.parse_unquoted(),
        }
    }

    /// Parses a value without quotes. The value ends at white space.
    fn parse_unquoted(&mut self) -> Result<Value> {
        let (start, rest) = (self.position, self.rest());
        let word = &rest[..rest.find(char::is_whitespace).unwrap_or(rest.len())];
        if let Some(special) = word.find(['"', '\\', '(', ')']) {
            let text =
                "put the text into double quotes, and write \\ before each \" and \\ in the text";
            return fail(start + special, text);
        }
        self.position += word.len();
        let Some(star) = word.find('*') else {
            return Ok(Value { text: word.to_owned(), star: None, start });
        };
        if star + 1 < word.len() {
            return fail(start + star, STAR_NOT_LAST);
        }
        Ok(Value { text: word[..star].to_owned(), star: Some(start + star), start })
    }

    /// Parses a value in double quotes.
    fn parse_quoted(&mut self) -> Result<Value> {
        let opening_quote = self.position;
        let mut value = Value { text: String::new(), star: None, start: opening_quote };
        // The first character is the opening quote.
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((offset, c)) = chars.next() {
            let position = opening_quote + offset;
            // Only the closing quote may follow a `*`.
            if let Some(star) = value.star.filter(|_| c != '"') {
                return fail(star, STAR_NOT_LAST);
            }
            match c {
                '"' => {
                    self.position = position + 1;
                    return Ok(value);
                }
                '*' => value.star = Some(position),
                '\\' => match chars.next() {
                    Some((_, escaped @ ('"' | '\\' | '*'))) => value.text.push(escaped),
                    Some(_) => return fail(position, r#"only " \ and * may follow a \"#),
                    None => break,
                },
                c => value.text.push(c),
            }
        }
        fail(opening_quote, "the closing double quote is missing")
    }
}

const STAR_NOT_LAST: &str =
    "a * is only allowed as the last character; for a literal * write \\* in double quotes";

fn allowed_operators(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Text | Kind::Word => &["=", ":"],
        Kind::Exact | Kind::Id | Kind::Flag | Kind::Enum(..) => &["="],
        Kind::Time => &["<", "<=", ">", ">="],
    }
}

fn build_predicate(field: &Field, operator: &str, value: Value) -> Result<Predicate> {
    let (name, start) = (field.name, value.start);
    if let Kind::Text | Kind::Word = field.kind {
        let raw_text = value.text.clone();
        let pattern = build_pattern(operator, value)?;
        return Ok(match field.kind {
            Kind::Word => Predicate::Word(pattern.map(str::to_lowercase)),
            _ => Predicate::Text { pattern: pattern.map(fold), raw_text },
        });
    }
    if let Some(star) = value.star {
        return fail(star, format!("{name} allows no *"));
    }
    let text = value.text;
    let predicate = match field.kind {
        Kind::Id => Uuid::try_parse(&text).ok().map(Predicate::Id).ok_or("must be a UUID"),
        Kind::Flag => text.parse().ok().map(Predicate::Flag).ok_or("must be true or false"),
        Kind::Time => time_range(operator, &text)
            .map(Predicate::Time)
            .ok_or("must be a time like 2026-01-31T12:00:00Z (RFC 3339)"),
        Kind::Enum(prefix, number_of) => {
            let name = format!("{prefix}{}", text.strip_prefix(prefix).unwrap_or(&text));
            // 0 is the value UNSPECIFIED.
            let number = number_of(&name).filter(|number| *number != 0);
            number.map(Predicate::Enum).ok_or("has no such value")
        }
        // `Text` and `Word` do not occur here: the code above returned for them.
        Kind::Exact | Kind::Text | Kind::Word => Ok(Predicate::Exact(text)),
    };
    predicate.or_else(|problem| fail(start, format!("{name} {problem}")))
}

fn build_pattern(operator: &str, value: Value) -> Result<Pattern> {
    match (operator, value.star) {
        (":", Some(star)) => fail(
            star,
            "`:` already matches any part of the text, so its value must not contain a *",
        ),
        (":", None) if value.text.is_empty() => {
            fail(value.start, "with `:` the value must not be empty")
        }
        (":", None) => Ok(Pattern::Part(value.text)),
        (_, Some(_)) => Ok(Pattern::Start(value.text)),
        (_, None) => Ok(Pattern::Whole(value.text)),
    }
}

/// The stored times that satisfy the comparison. Stored times are whole microseconds, the
/// resolution of Postgres, so the bounds are whole microseconds too. `None` when the text is not a
/// valid time.
fn time_range(operator: &str, text: &str) -> Option<TimeRange> {
    let given_time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    let floor = given_time.replace_nanosecond(given_time.microsecond() * 1000).ok()?;
    // The first whole microsecond after the given time.
    let next = floor.checked_add(Duration::MICROSECOND)?;
    // The first whole microsecond that is not before the given time.
    let ceiling = if floor == given_time { given_time } else { next };
    Some(match operator {
        "<" => TimeRange { before: Some(ceiling), ..TimeRange::default() },
        "<=" => TimeRange { before: Some(next), ..TimeRange::default() },
        ">" => TimeRange { from: Some(next), ..TimeRange::default() },
        _ => TimeRange { from: Some(ceiling), ..TimeRange::default() },
    })
}
