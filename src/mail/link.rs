//! Links in mails: single-use tokens, each for one purpose.
//!
//! The token has 256 random bits. Postgres stores its SHA-256 only.
//!
//! Rule: `end_mail_links` (`migrations/0008_passwords.sql`) ends the links of a user when the
//! password, the email or the state changes (triggers).

use std::time::Duration;

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use uuid::Uuid;

use crate::{
    error::Result,
    ids::{TenantId, UserId},
    secrets::secret,
};

/// Length of an id, in bytes.
const ID: usize = 16;

/// What a link is for. A link of one purpose serves no other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    PasswordReset,
}

impl Purpose {
    /// Time after which an unused link ends.
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

/// The user that a link is for, and the hash of its secret.
pub struct Link {
    pub purpose: Purpose,
    pub tenant: TenantId,
    pub user: UserId,
    /// SHA-256 of the secret. A fast hash is safe, because nobody can guess 256 random bits.
    pub(super) hash: Vec<u8>,
}

impl Link {
    /// Makes a link, and its token for the mail.
    ///
    /// # Errors
    /// INTERNAL when the system has no random bytes.
    pub(super) fn new(
        purpose: Purpose,
        tenant: TenantId,
        user: UserId,
    ) -> Result<(Self, SecretString)> {
        let secret = secret::random()?;
        let bytes = [tenant.0.as_bytes(), user.0.as_bytes(), secret.as_slice()].concat();
        let token = BASE64_URL_SAFE_NO_PAD.encode(Zeroizing::new(bytes).as_slice()).into();
        Ok((Self { purpose, tenant, user, hash: secret::hash(&*secret) }, token))
    }

    /// Reads the token of a link; `None` for a text that is no token.
    #[must_use]
    pub fn read(purpose: Purpose, token: &SecretString) -> Option<Self> {
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(token.expose_secret()).ok().map(Zeroizing::new)?;
        let (tenant, rest) = bytes.split_at_checked(ID)?;
        let (user, secret) = rest.split_at_checked(ID)?;
        let id = |bytes| Uuid::from_slice(bytes).ok();
        let (tenant, user) = (TenantId(id(tenant)?), UserId(id(user)?));
        let hash = || secret::hash(secret);
        (secret.len() == secret::LENGTH).then(|| Self { purpose, tenant, user, hash: hash() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made_and_no_other_text_is_a_token() {
        let purpose = Purpose::PasswordReset;
        let (made, token) = Link::new(purpose, TenantId::new(), UserId::new()).expect("a link");
        let read = Link::read(purpose, &token).expect("a link");
        assert_eq!((read.tenant, read.user, &read.hash), (made.tenant, made.user, &made.hash));
        let token = token.expose_secret();
        let longer = format!("{token}AA");
        for other in ["", "x", &token[1..], &token[..token.len() - 4], &longer, "é"] {
            assert!(Link::read(purpose, &other.into()).is_none(), "{other}");
        }
    }
}
