//! Links in mails: single-use tokens, each for one purpose.
//!
//! A token contains a secret of 256 random bits. Postgres stores only the SHA-256 of the secret.
//!
//! Rule: `end_mail_links` (`migrations/0008_passwords.sql`) invalidates the links of a user when
//! the password, the email or the state changes (triggers).

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use uuid::Uuid;

use crate::{
    error::Result,
    ids::{SubjectId, TenantId},
    secrets::secret,
};

/// Length of an id, in bytes.
const ID_LENGTH: usize = 16;

/// The purpose of a link. A link is valid only for its purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    PasswordReset,
}

impl Purpose {
    /// Time after which an unused link expires.
    #[must_use]
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::PasswordReset => Duration::from_mins(10),
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
        }
    }
}

/// A link: its purpose and its user, and the hash of the secret in its token.
pub struct Link {
    pub purpose: Purpose,
    pub tenant: TenantId,
    pub user: SubjectId,
    /// SHA-256 of the secret. A fast hash is safe, because nobody can guess 256 random bits.
    pub(super) hash: Vec<u8>,
}

impl Link {
    /// Generates a link, and the token of the link for the mail.
    ///
    /// # Errors
    /// INTERNAL when the system has no random bytes.
    pub(super) fn new(
        purpose: Purpose,
        tenant: TenantId,
        user: SubjectId,
    ) -> Result<(Self, SecretString)> {
        let secret = secret::random()?;
        let bytes = [tenant.0.as_bytes(), user.0.as_bytes(), secret.as_slice()].concat();
        let token = BASE64_URL_SAFE_NO_PAD.encode(Zeroizing::new(bytes).as_slice()).into();
        Ok((Self { purpose, tenant, user, hash: secret::hash(&*secret) }, token))
    }

    /// Parses the token of a link; `None` when the token is malformed.
    #[must_use]
    pub fn parse(purpose: Purpose, token: &SecretString) -> Option<Self> {
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(token.expose_secret()).ok().map(Zeroizing::new)?;
        let (tenant, rest) = bytes.split_at_checked(ID_LENGTH)?;
        let (user, secret) = rest.split_at_checked(ID_LENGTH)?;
        let id = |bytes| Uuid::from_slice(bytes).ok();
        let (tenant, user) = (TenantId(id(tenant)?), SubjectId(id(user)?));
        let hash = || secret::hash(secret);
        (secret.len() == secret::LENGTH).then(|| Self { purpose, tenant, user, hash: hash() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_token_is_parsed() {
        let purpose = Purpose::PasswordReset;
        let new_link = Link::new(purpose, TenantId::new(), SubjectId::new());
        let (link, token) = new_link.expect("a link is generated");
        let parsed = Link::parse(purpose, &token).expect("the token is parsed");
        assert_eq!(parsed.tenant, link.tenant);
        assert_eq!((parsed.user, &parsed.hash), (link.user, &link.hash));
        let token = token.expose_secret();
        let longer = format!("{token}AA");
        let shorter = &token[..token.len() - 4];
        for malformed in ["", "x", &token[1..], shorter, &longer, "é"] {
            assert!(Link::parse(purpose, &malformed.into()).is_none(), "{malformed}");
        }
    }
}
