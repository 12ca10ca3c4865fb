//! JWT assertions. A client signs an assertion with its own key to authenticate (RFC 7523).

use jsonwebtoken::Validation;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    LEEWAY_SECONDS,
    key::{self, Purpose, VerifyingKey},
};
use crate::clock;

/// Maximum time until the expiry of a presented assertion, in seconds. The limit bounds how long a
/// stolen assertion is usable.
const MAX_REMAINING_SECONDS: i64 = 300;

/// A public key that verifies the assertions of one subject.
pub struct AssertionKey(VerifyingKey);

/// A valid assertion. The code that accepts it must reject the same assertion later.
pub struct Assertion {
    /// The claim `jti`.
    pub jti: String,
    /// The claim `exp` plus the clock leeway, in seconds since 1970.
    pub ends_at: i64,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    exp: i64,
}

impl AssertionKey {
    /// Reads a public key in PEM. The key verifies assertions by `subject` for `audience`.
    ///
    /// # Errors
    /// When the key is not RSA with at least 2048 bits, P-256 or Ed25519.
    pub fn read(pem: &str, subject: &str, audience: &str) -> anyhow::Result<Self> {
        let mut key = VerifyingKey::from_pem(pem, Purpose { issuer: subject, audience })?;
        let validation: &mut Validation = &mut key.validation;
        validation.sub = Some(subject.to_owned());
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        Ok(Self(key))
    }

    /// The key id in an assertion's header, not verified; `None` when the header has no valid key
    /// id.
    #[must_use]
    pub fn unverified_key_id(jwt: &str) -> Option<Uuid> {
        let header = jsonwebtoken::decode_header(jwt).ok().filter(key::has_no_embedded_key)?;
        Uuid::try_parse(&header.kid?).ok()
    }

    /// Verifies an assertion; `None` when the assertion is invalid.
    #[must_use]
    pub fn verify(&self, jwt: &str) -> Option<Assertion> {
        let claims: Claims =
            jsonwebtoken::decode(jwt, &self.0.decoding_key, &self.0.validation).ok()?.claims;
        let latest_expiry = clock::now().unix_timestamp() + MAX_REMAINING_SECONDS + LEEWAY_SECONDS;
        (claims.exp <= latest_expiry && !claims.jti.is_empty())
            .then_some(Assertion { jti: claims.jti, ends_at: claims.exp + LEEWAY_SECONDS })
    }
}
