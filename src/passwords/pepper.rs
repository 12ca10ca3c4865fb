//! Peppers: secret keys that are an input of each hash and are not stored in the database
//! (SP 800-63B-4, section 3.1.1.2). An attacker who has stolen only the hashes can't test guesses
//! against them.
//!
//! A pepper is the secret value of argon2 (RFC 9106, section 3.1). The hash contains the
//! pepper's id, so a new pepper can be introduced while hashes with old peppers still verify.

use std::path::Path;

use anyhow::Context;
use argon2::KeyId;
use base64::{Engine, prelude::BASE64_STANDARD_NO_PAD};
use secrecy::{ExposeSecret, SecretSlice};

use crate::secrets::key_lines::{self, KeyLine};

/// The configured peppers. The first pepper is used for new hashes.
#[derive(Default)]
pub(super) struct Peppers(Vec<Pepper>);

struct Pepper {
    id: KeyId,
    secret: SecretSlice<u8>,
}

impl Peppers {
    /// Reads the peppers from a file of keys.
    pub(super) fn load(path: &Path) -> anyhow::Result<Self> {
        Self::from_keys(key_lines::read(path)?)
    }

    pub(super) fn from_keys(keys: Vec<KeyLine>) -> anyhow::Result<Self> {
        let pepper = |line: KeyLine| {
            let id =
                KeyId::new(line.id.as_bytes()).ok().context("the id of a pepper is too long")?;
            Ok(Pepper { id, secret: line.key })
        };
        keys.into_iter().map(pepper).collect::<anyhow::Result<_>>().map(Self)
    }

    /// The id of the pepper for new hashes; empty when no pepper is configured.
    pub(super) fn current_id(&self) -> KeyId {
        self.0.first().map_or(KeyId::EMPTY, |pepper| pepper.id)
    }

    /// The secret for a pepper id: empty for the empty id, `None` for an id that is not
    /// configured.
    pub(super) fn secret(&self, id: &[u8]) -> Option<&[u8]> {
        if id.is_empty() {
            return Some(&[]);
        }
        let pepper = self.0.iter().find(|pepper| pepper.id.as_bytes() == id)?;
        Some(pepper.secret.expose_secret())
    }
}

/// The ids of peppers that stored hashes need and that the file of peppers does not contain. `path`
/// is `None` when no file is configured. `ids` have the form of the parameter `keyid` of a stored
/// hash: base64.
///
/// # Errors
/// When the file can't be read or has no pepper.
pub fn missing_peppers(path: Option<&Path>, ids: &[String]) -> anyhow::Result<Vec<String>> {
    let peppers = path.map(Peppers::load).transpose()?.unwrap_or_default();
    let mut missing = Vec::new();
    for text in ids {
        // An id that is not base64 is reported unchanged.
        let id = BASE64_STANDARD_NO_PAD.decode(text).unwrap_or_else(|_| text.clone().into());
        if peppers.secret(&id).is_none() {
            missing.push(String::from_utf8_lossy(&id).into_owned());
        }
    }
    Ok(missing)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::*;

    #[test]
    fn peppers_are_read_from_lines_of_keys() {
        let (old, new) = (STANDARD.encode([1; 32]), STANDARD.encode([2; 40]));
        let keys = key_lines::parse(&format!("# two\n\nb {new}\na {old}\n").into());
        let peppers =
            Peppers::from_keys(keys.expect("the file is valid")).expect("the keys are peppers");
        assert_eq!(peppers.current_id().as_bytes(), b"b");
        assert_eq!(peppers.secret(b"a"), Some([1; 32].as_slice()));
        assert_eq!(peppers.secret(b"b"), Some([2; 40].as_slice()));
        assert_eq!((peppers.secret(b"c"), peppers.secret(b"")), (None, Some([].as_slice())));
    }
}
