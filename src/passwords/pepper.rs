//! Peppers: secret keys that go into each hash and are kept apart from the database
//! (SP 800-63B-4, 3.1.1.2), so that who has the hashes alone can't try passwords.
//!
//! A pepper is argon2's own secret value (RFC 9106, 3.1), and its id stands in the
//! hash, so that a new one can take over while hashes with the old ones verify.

use std::{fs, path::Path};

use anyhow::{Context, bail, ensure};
use argon2::KeyId;
use base64::{Engine, engine::general_purpose::STANDARD};
use secrecy::{ExposeSecret, SecretSlice, SecretString};

/// The shortest pepper, in bytes: more than the 112 bits that are asked for.
const SHORTEST: usize = 32;

/// The peppers in use, that of new hashes first.
#[derive(Default)]
pub(super) struct Peppers(Vec<Pepper>);

struct Pepper {
    id: KeyId,
    secret: SecretSlice<u8>,
}

impl Peppers {
    /// Reads a file of lines `<id> <base64>`. Empty lines and those that begin with `#`
    /// say nothing.
    pub(super) fn load(path: &Path) -> anyhow::Result<Self> {
        let name = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("can't read {name}"))?;
        Self::parse(&text.into()).with_context(|| format!("the peppers in {name}"))
    }

    pub(super) fn parse(text: &SecretString) -> anyhow::Result<Self> {
        let mut peppers = Self::default();
        for (at, line) in text.expose_secret().lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let pepper = Pepper::parse(line).with_context(|| format!("line {}", at + 1))?;
            ensure!(
                peppers.secret(pepper.id.as_bytes()).is_none(),
                "line {}: its id is used above",
                at + 1
            );
            peppers.0.push(pepper);
        }
        ensure!(!peppers.0.is_empty(), "there is none in it");
        Ok(peppers)
    }

    /// The id of the pepper for new hashes; the empty one where there is none.
    pub(super) fn current(&self) -> KeyId {
        self.0.first().map_or(KeyId::EMPTY, |pepper| pepper.id)
    }

    /// What goes into a hash of this id: nothing for the empty one. `None` for one that
    /// is not configured.
    pub(super) fn secret(&self, id: &[u8]) -> Option<&[u8]> {
        if id.is_empty() {
            return Some(&[]);
        }
        let pepper = self.0.iter().find(|pepper| pepper.id.as_bytes() == id)?;
        Some(pepper.secret.expose_secret())
    }
}

impl Pepper {
    /// Nothing of the line is in the errors.
    fn parse(line: &str) -> anyhow::Result<Self> {
        let mut parts = line.split_whitespace();
        let (Some(id), Some(secret), None) = (parts.next(), parts.next(), parts.next()) else {
            bail!("it must be an id, a space and a key in base64");
        };
        ensure!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "its id must be alphanumeric");
        let id = KeyId::new(id.as_bytes()).ok().context("its id must have 8 characters at most")?;
        let secret = STANDARD.decode(secret).ok().context("its key must be base64")?;
        ensure!(secret.len() >= SHORTEST, "its key must have {SHORTEST} bytes at least");
        Ok(Self { id, secret: secret.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Peppers, String> {
        Peppers::parse(&text.into()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn the_first_is_for_new_hashes_and_all_verify() {
        let (old, new) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 40]));
        let peppers = parse(&format!("# two\n\nb {new}\na {old}\n")).expect("peppers");
        assert_eq!(peppers.current().as_bytes(), b"b");
        assert_eq!(peppers.secret(b"a"), Some([1; 32].as_slice()));
        assert_eq!(peppers.secret(b"b"), Some([2; 40].as_slice()));
        assert_eq!((peppers.secret(b"c"), peppers.secret(b"")), (None, Some([].as_slice())));
    }

    #[test]
    fn a_line_that_is_wrong_is_named_and_not_repeated() {
        let key = STANDARD.encode([7; 32]);
        for (text, wanted) in [
            (String::new(), "there is none"),
            ("a".into(), "line 1: it must be an id"),
            (format!("a {key} more"), "line 1: it must be an id"),
            (format!("# x\nninechars {key}"), "line 2: its id must have 8"),
            (format!("a-b {key}"), "line 1: its id must be alphanumeric"),
            (format!("a !{key}"), "line 1: its key must be base64"),
            (format!("a {}", STANDARD.encode([7; 31])), "line 1: its key must have 32"),
            (format!("a {key}\na {key}"), "line 2: its id is used"),
        ] {
            let message = parse(&text).err().unwrap_or_default();
            assert!(message.contains(wanted) && !message.contains(&key), "{text}: {message}");
        }
    }
}
