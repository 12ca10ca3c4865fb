//! The text form of an API key's secret.
//!
//! It is `tenantry_` and 70 characters of base64url: the tenant's id, 256 random bits, a
//! checksum. Scanners for leaked secrets find it by `tenantry_[A-Za-z0-9_-]{70}`. The checksum
//! lets the server refuse a mistyped secret without a query.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{SecretString, zeroize::Zeroizing};
use uuid::Uuid;

use crate::{error::Result, ids::TenantId, secrets::secret};

/// The prefix of each secret.
const PREFIX: &str = "tenantry_";
const ID: usize = 16;
const CHECKSUM: usize = 4;

/// A secret, as the database stores it.
#[derive(Debug)]
pub struct Secret {
    /// The tenant of the key's account.
    pub tenant: TenantId,
    /// SHA-256 of the random bits.
    pub hash: Vec<u8>,
}

impl Secret {
    /// Generates a secret; returns its stored form and its text.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn new(tenant: TenantId) -> Result<(Self, SecretString)> {
        let random = secret::random()?;
        let mut bytes = Zeroizing::new([tenant.0.as_bytes(), random.as_slice()].concat());
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        let text = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        Ok((Self { tenant, hash: secret::hash(random.as_slice()) }, text.into()))
    }

    /// Whether a text has the prefix of a secret. No token starts with that prefix.
    #[must_use]
    pub fn has_prefix(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Parses the text of a secret; `None` when it is malformed or its checksum is wrong.
    #[must_use]
    pub fn read(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok().map(Zeroizing::new)?;
        let (content, sum) = bytes.split_at_checked(ID + secret::LENGTH)?;
        let (tenant, random) = content.split_at_checked(ID)?;
        let tenant = TenantId(Uuid::from_slice(tenant).ok()?);
        (sum == checksum(content)).then(|| Self { tenant, hash: secret::hash(random) })
    }
}

fn checksum(of: &[u8]) -> Vec<u8> {
    let mut sum = secret::hash(of);
    sum.truncate(CHECKSUM);
    sum
}

#[cfg(test)]
mod tests {
    use regex::Regex;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_is_read_as_it_was_made_and_scanners_find_it() {
        let scanner = Regex::new("^tenantry_[A-Za-z0-9_-]{70}$").expect("a pattern");
        let tenant = TenantId::new();
        let (made, text) = Secret::new(tenant).expect("a secret");
        let text = text.expose_secret();
        assert!(scanner.is_match(text) && Secret::has_prefix(text));
        let read = Secret::read(text).expect("a secret");
        assert_eq!((read.tenant, &read.hash), (tenant, &made.hash));
        let (_, other) = Secret::new(tenant).expect("a secret");
        assert_ne!(other.expose_secret(), text);
    }

    #[test]
    fn nothing_else_is_read() {
        let (_, text) = Secret::new(TenantId::new()).expect("a secret");
        let text = text.expose_secret();
        for at in 0..text.len() {
            let mut other = text.as_bytes().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = String::from_utf8(other).expect("text");
            assert!(Secret::read(&other).is_none(), "{other}");
        }
        let longer = format!("{text}AA");
        for other in ["", "tenantry_", &text[1..], &text[..text.len() - 4], &longer, "tenantry_é"]
        {
            assert!(Secret::read(other).is_none(), "{other}");
        }
    }
}
