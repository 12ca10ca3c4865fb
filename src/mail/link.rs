//! The token in a mail.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use uuid::Uuid;

use crate::{
    error::Result,
    ids::{TenantId, UserId},
    secrets::secret,
};

const ID: usize = 16;

/// Whose password may be reset, and the hash of the secret that proves it. The token
/// itself is in the mail and nowhere else.
pub struct ResetToken {
    pub tenant: TenantId,
    pub user: UserId,
    /// SHA-256: of 256 random bits there is nothing to guess.
    pub hash: Vec<u8>,
}

impl ResetToken {
    /// A new one, and its text.
    pub fn new(tenant: TenantId, user: UserId) -> Result<(Self, SecretString)> {
        let secret = secret::random()?;
        let bytes = [tenant.0.as_bytes(), user.0.as_bytes(), secret.as_slice()].concat();
        let text = BASE64_URL_SAFE_NO_PAD.encode(Zeroizing::new(bytes).as_slice()).into();
        Ok((Self { tenant, user, hash: secret::hash(&*secret) }, text))
    }

    /// Reads a text; `None` for one that is no token.
    pub fn read(text: &SecretString) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.expose_secret()).ok().map(Zeroizing::new)?;
        let (tenant, rest) = bytes.split_at_checked(ID)?;
        let (user, secret) = rest.split_at_checked(ID)?;
        let id = |bytes| Uuid::from_slice(bytes).ok();
        let (tenant, user) = (TenantId(id(tenant)?), UserId(id(user)?));
        (secret.len() == secret::LENGTH).then(|| Self { tenant, user, hash: secret::hash(secret) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_was_made_and_nothing_else_is() {
        let (made, text) = ResetToken::new(TenantId::new(), UserId::new()).expect("a token");
        let read = ResetToken::read(&text).expect("a token");
        assert_eq!((read.tenant, read.user, &read.hash), (made.tenant, made.user, &made.hash));
        let text = text.expose_secret();
        let longer = format!("{text}AA");
        for other in ["", "x", &text[1..], &text[..text.len() - 4], &longer, "é"] {
            assert!(ResetToken::read(&other.into()).is_none(), "{other}");
        }
    }
}
