//! JWTs that somebody else signs to prove who they are (RFC 7523).

use jsonwebtoken::Validation;
use serde::Deserialize;
use uuid::Uuid;

use super::{
    LEEWAY_SECONDS,
    key::{self, Purpose, VerifyingKey},
};
use crate::clock;

/// How far ahead an assertion may end, in seconds: whoever steals one has no longer.
const LONGEST: i64 = 300;

/// A public key that verifies one subject's assertions.
pub struct AssertionKey(VerifyingKey);

/// An assertion that counts now. It must not count again.
pub struct Assertion {
    /// Its own id.
    pub jti: String,
    /// When it ends, in seconds since 1970, with the time that clocks may be apart.
    pub ends_at: i64,
}

#[derive(Deserialize)]
struct Claims {
    jti: String,
    exp: i64,
}

impl AssertionKey {
    /// Reads a key in PEM. It verifies what `subject` says of itself to `audience`.
    ///
    /// # Errors
    /// When it is none of RSA with at least 2048 bits, P-256 and Ed25519.
    pub fn read(pem: &str, subject: &str, audience: &str) -> anyhow::Result<Self> {
        let mut key = VerifyingKey::of(pem, Purpose { issuer: subject, audience })?;
        let validation: &mut Validation = &mut key.validation;
        validation.sub = Some(subject.to_owned());
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        Ok(Self(key))
    }

    /// Which key an assertion says it was signed with; `None` for what is none.
    #[must_use]
    pub fn named_in(jwt: &str) -> Option<Uuid> {
        let header = jsonwebtoken::decode_header(jwt).ok().filter(key::is_plain)?;
        Uuid::try_parse(&header.kid?).ok()
    }

    /// An assertion that counts; `None` for any other, whatever is wrong with it.
    #[must_use]
    pub fn verify(&self, jwt: &str) -> Option<Assertion> {
        let claims: Claims =
            jsonwebtoken::decode(jwt, &self.0.decoding, &self.0.validation).ok()?.claims;
        let latest = clock::now().unix_timestamp() + LONGEST + LEEWAY_SECONDS;
        (claims.exp <= latest && !claims.jti.is_empty())
            .then_some(Assertion { jti: claims.jti, ends_at: claims.exp + LEEWAY_SECONDS })
    }
}
