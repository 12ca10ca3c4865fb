//! Links in mails: single-use tokens, each for one purpose and one address.
//!
//! A token contains a secret of 256 random bits. Postgres stores only the SHA-256 of the secret.
//! The link of a registration is stored with the registration (`account/registrations`), because
//! there is no user yet.
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
    /// Sets a new password. The use of the link also verifies the email of the user.
    PasswordReset,
    /// Verifies the email of a user.
    EmailVerification,
    /// Changes the email of a user to the address of the link.
    EmailChange,
    /// Creates a user in an existing tenant, with the address of the link.
    Registration,
}

impl Purpose {
    /// All purposes.
    pub const ALL: [Self; 4] =
        [Self::PasswordReset, Self::EmailVerification, Self::EmailChange, Self::Registration];

    /// Time after which an unused link expires. A link that sets a password is the most powerful,
    /// so it expires first.
    #[must_use]
    pub const fn lifetime(self) -> Duration {
        match self {
            Self::PasswordReset => Duration::from_mins(10),
            Self::EmailVerification | Self::EmailChange | Self::Registration => {
                Duration::from_hours(1)
            }
        }
    }

    /// The name of the purpose in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PasswordReset => "password_reset",
            Self::EmailVerification => "email_verification",
            Self::EmailChange => "email_change",
            Self::Registration => "registration",
        }
    }

    /// The bytes at the end of a token that name the token's purpose. Tokens for password resets
    /// have no such bytes, because the tokens of earlier releases have none. The bytes are only a
    /// hint: a link is looked up by its purpose, so a token with altered bytes finds no link.
    const fn suffix(self) -> &'static [u8] {
        match self {
            Self::PasswordReset => &[],
            Self::EmailVerification => &[1],
            Self::EmailChange => &[2],
            Self::Registration => &[3],
        }
    }
}

/// A link: its purpose and its user, and the hash of the secret in its token.
#[derive(Clone)]
pub struct Link {
    pub purpose: Purpose,
    pub tenant: TenantId,
    /// The user. With [`Purpose::Registration`], the id that the user will have.
    pub user: SubjectId,
    /// SHA-256 of the secret. A fast hash is safe, because nobody can guess 256 random bits.
    pub hash: Vec<u8>,
}

impl Link {
    /// Generates a link, and the token of the link for the mail.
    ///
    /// # Errors
    /// INTERNAL when the system has no random bytes.
    pub fn new(
        purpose: Purpose,
        tenant: TenantId,
        user: SubjectId,
    ) -> Result<(Self, SecretString)> {
        let secret = secret::random()?;
        let parts = [tenant.0.as_bytes(), user.0.as_bytes(), secret.as_slice(), purpose.suffix()];
        let bytes = Zeroizing::new(parts.concat());
        let token = BASE64_URL_SAFE_NO_PAD.encode(bytes.as_slice()).into();
        Ok((Self { purpose, tenant, user, hash: secret::hash(&*secret) }, token))
    }

    /// Parses the token of a link with one of these purposes; `None` when the token is malformed,
    /// or has another purpose.
    #[must_use]
    pub fn parse(purposes: &[Purpose], token: &SecretString) -> Option<Self> {
        let bytes =
            BASE64_URL_SAFE_NO_PAD.decode(token.expose_secret()).ok().map(Zeroizing::new)?;
        let (tenant, rest) = bytes.split_at_checked(ID_LENGTH)?;
        let (user, rest) = rest.split_at_checked(ID_LENGTH)?;
        let (secret, suffix) = rest.split_at_checked(secret::LENGTH)?;
        let purpose = *purposes.iter().find(|purpose| purpose.suffix() == suffix)?;
        let id = |bytes| Uuid::from_slice(bytes).ok();
        let (tenant, user) = (TenantId(id(tenant)?), SubjectId(id(user)?));
        Some(Self { purpose, tenant, user, hash: secret::hash(secret) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_well_formed_token_of_the_purpose_is_parsed() {
        for purpose in Purpose::ALL {
            let new_link = Link::new(purpose, TenantId::new(), SubjectId::new());
            let (link, token) = new_link.expect("a link is generated");
            let parsed = Link::parse(&[purpose], &token).expect("the token is parsed");
            assert_eq!(parsed.tenant, link.tenant);
            assert_eq!((parsed.user, &parsed.hash), (link.user, &link.hash));
            let other_purposes: Vec<_> =
                Purpose::ALL.into_iter().filter(|other| *other != purpose).collect();
            assert!(Link::parse(&other_purposes, &token).is_none(), "{purpose:?}");
            let token = token.expose_secret();
            let longer = format!("{token}AAAA");
            let shorter = &token[..token.len() - 4];
            for malformed in ["", "x", &token[1..], shorter, &longer, "é"] {
                assert!(Link::parse(&[purpose], &malformed.into()).is_none(), "{malformed}");
            }
        }
    }
}
