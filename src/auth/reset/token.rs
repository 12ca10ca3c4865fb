//! The token in a mail.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use uuid::Uuid;

use crate::{
    error::{Error, Result},
    ids::{TenantId, UserId},
};

const ID: usize = 16;
const SECRET: usize = 32;

/// Whose password may be reset, and the hash of the secret that proves it. The token
/// itself is in the mail and nowhere else.
pub(super) struct ResetToken {
    pub tenant: TenantId,
    pub user: UserId,
    /// SHA-256: of 256 random bits there is nothing to guess.
    pub hash: Vec<u8>,
}

impl ResetToken {
    /// A new one, and its text.
    pub fn new(tenant: TenantId, user: UserId) -> Result<(Self, SecretString)> {
        let mut secret = Zeroizing::new([0; SECRET]);
        rand::fill(secret.as_mut_slice()).map_err(|_| Error::defect("no random bytes"))?;
        let bytes = [tenant.0.as_bytes(), user.0.as_bytes(), secret.as_slice()].concat();
        let text = BASE64_URL_SAFE_NO_PAD.encode(Zeroizing::new(bytes).as_slice()).into();
        Ok((Self { tenant, user, hash: hash(&secret) }, text))
    }

    /// Reads a text; `None` for one that is no token.
    pub fn read(text: &SecretString) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text.expose_secret()).ok().map(Zeroizing::new)?;
        let (tenant, rest) = bytes.split_at_checked(ID)?;
        let (user, secret) = rest.split_at_checked(ID)?;
        let secret: &[u8; SECRET] = secret.try_into().ok()?;
        let id = |bytes| Uuid::from_slice(bytes).ok();
        Some(Self { tenant: TenantId(id(tenant)?), user: UserId(id(user)?), hash: hash(secret) })
    }
}

fn hash(secret: &[u8; SECRET]) -> Vec<u8> {
    digest(&SHA256, secret).as_ref().to_vec()
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
