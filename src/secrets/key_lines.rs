//! Files of secret keys. Each key has an id. The first key is used for new data, the other keys for
//! existing data.

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

/// Minimum length of a key, in bytes. 32 bytes (256 bits) exceed the 112 bits that SP 800-131A
/// requires.
const MIN_KEY_BYTES: usize = 32;

/// Maximum length of an id, in characters.
const MAX_ID_LENGTH: usize = 8;

/// A line of a file of secret keys.
pub struct KeyLine {
    /// The id of the key. Data that is encrypted or signed with the key contains the id.
    pub id: String,
    pub key: SecretSlice<u8>,
}

/// Reads a file of lines `<id> <base64>`. Empty lines and lines that start with `#` are
/// ignored.
///
/// # Errors
/// When the file can't be read, has no key, or has an invalid line. No error contains a key.
pub fn read(path: &Path) -> anyhow::Result<Vec<KeyLine>> {
    let name = path.display();
    let text = fs::read_to_string(path).with_context(|| format!("can't read {name}"))?;
    parse(&text.into()).with_context(|| format!("the keys in {name}"))
}

/// Parses the lines of a file of secret keys.
///
/// # Errors
/// When there is no key, or a line is invalid.
pub fn parse(text: &SecretString) -> anyhow::Result<Vec<KeyLine>> {
    let mut keys: Vec<KeyLine> = Vec::new();
    for (index, line) in text.expose_secret().lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let key = KeyLine::parse(line).with_context(|| format!("line {}", index + 1))?;
        ensure!(
            keys.iter().all(|earlier| earlier.id != key.id),
            "line {}: the id is used in an earlier line",
            index + 1
        );
        keys.push(key);
    }
    ensure!(!keys.is_empty(), "there is no key");
    Ok(keys)
}

impl KeyLine {
    fn parse(line: &str) -> anyhow::Result<Self> {
        let mut parts = line.split_whitespace();
        let (Some(id), Some(key), None) = (parts.next(), parts.next(), parts.next()) else {
            bail!("must be an id, a space and a key in base64");
        };
        ensure!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "the id must be alphanumeric");
        ensure!(id.len() <= MAX_ID_LENGTH, "the id must have at most {MAX_ID_LENGTH} characters");
        let key = STANDARD.decode(key).ok().context("the key must be base64")?;
        ensure!(key.len() >= MIN_KEY_BYTES, "the key must have at least {MIN_KEY_BYTES} bytes");
        Ok(Self { id: id.to_owned(), key: key.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_contains_the_line_number_and_no_key() {
        let key = STANDARD.encode([7; 32]);
        for (text, expected) in [
            (String::new(), "there is no key"),
            ("a".into(), "line 1: must be an id"),
            (format!("a {key} more"), "line 1: must be an id"),
            (format!("# x\nninechars {key}"), "line 2: the id must have at most 8"),
            (format!("a-b {key}"), "line 1: the id must be alphanumeric"),
            (format!("a !{key}"), "line 1: the key must be base64"),
            (format!("a {}", STANDARD.encode([7; 31])), "line 1: the key must have at least 32"),
            (format!("a {key}\na {key}"), "line 2: the id is used"),
        ] {
            let message = parse(&text.clone().into()).err().map(|e| format!("{e:#}"));
            let message = message.unwrap_or_default();
            assert!(message.contains(expected) && !message.contains(&key), "{text}: {message}");
        }
    }
}
