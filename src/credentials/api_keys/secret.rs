//! The secret of an API key, and its text form.
//!
//! The text is `tenantry_` and 70 characters of base64url, which encode the tenant's id, 256
//! random bits and a checksum. Scanners for leaked secrets find the text by
//! `tenantry_[A-Za-z0-9_-]{70}`. The checksum lets the server refuse a mistyped secret without a
//! query.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{SecretString, zeroize::Zeroizing};
use uuid::Uuid;

use crate::{error::Result, ids::TenantId, secrets::secret};

/// The prefix of each secret.
const PREFIX: &str = "tenantry_";

/// Length of the tenant's id, in bytes.
const TENANT_ID_LENGTH: usize = 16;

/// Length of the checksum, in bytes.
const CHECKSUM_LENGTH: usize = 4;

/// A secret in the form that the database stores: the hash instead of the random bits.
#[derive(Debug)]
pub struct Secret {
    /// The tenant of the key's account.
    pub tenant: TenantId,
    /// SHA-256 of the random bits.
    pub hash: Vec<u8>,
}

impl Secret {
    /// Generates a secret. Returns the form that the database stores, and the text for the client.
    ///
    /// # Errors
    /// Fails when the system provides no random bytes.
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
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX)?;
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(encoded).ok().map(Zeroizing::new)?;
        let (content, sum) = bytes.split_at_checked(TENANT_ID_LENGTH + secret::LENGTH)?;
        let (tenant, random) = content.split_at_checked(TENANT_ID_LENGTH)?;
        let tenant = TenantId(Uuid::from_slice(tenant).ok()?);
        (sum == checksum(content)).then(|| Self { tenant, hash: secret::hash(random) })
    }
}

/// The first bytes of the SHA-256 of the tenant's id and the random bits.
fn checksum(content: &[u8]) -> Vec<u8> {
    let mut sum = secret::hash(content);
    sum.truncate(CHECKSUM_LENGTH);
    sum
}

#[cfg(test)]
mod tests {
    use regex::Regex;
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn a_secret_is_parsed_from_its_text_and_scanners_find_the_text() {
        let scanner = Regex::new("^tenantry_[A-Za-z0-9_-]{70}$").expect("the pattern is valid");
        let tenant = TenantId::new();
        let (secret, text) = Secret::new(tenant).expect("a secret is generated");
        let text = text.expose_secret();
        assert!(scanner.is_match(text) && Secret::has_prefix(text));
        let parsed = Secret::parse(text).expect("the text is parsed");
        assert_eq!((parsed.tenant, &parsed.hash), (tenant, &secret.hash));
        let (_, other_text) = Secret::new(tenant).expect("a secret is generated");
        assert_ne!(other_text.expose_secret(), text);
    }

    #[test]
    fn an_altered_or_malformed_secret_is_not_parsed() {
        let (_, text) = Secret::new(TenantId::new()).expect("a secret is generated");
        let text = text.expose_secret();
        for index in 0..text.len() {
            let mut altered = text.as_bytes().to_vec();
            altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("the text is ASCII");
            assert!(Secret::parse(&altered).is_none(), "{altered}");
        }
        let longer = format!("{text}AA");
        let shorter = &text[..text.len() - 4];
        for malformed in ["", "tenantry_", &text[1..], shorter, &longer, "tenantry_é"] {
            assert!(Secret::parse(malformed).is_none(), "{malformed}");
        }
    }
}
