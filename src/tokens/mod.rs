//! Access and refresh tokens: JWTs that are kept apart by key pair, `typ` and
//! `aud` (RFC 8725, 3.11 and 3.12), so that neither passes for the other.

mod assertion;
mod claims;
mod files;
mod key;
mod keyring;
mod opaque;
pub mod pem;
mod reload;
mod signer;
mod source;
mod transit;

pub use assertion::AssertionKey;
pub use claims::{Claims, LEEWAY_SECONDS, SubjectType, TokenKind};
pub use keyring::{Keyring, TokenContent, VerifiedBy};
pub use opaque::OpaqueTokens;
pub use reload::{Renew, Renewed};
pub use source::{KeyPaths, KeySource};
pub use transit::TransitKeys;

use secrecy::SecretString;
use time::OffsetDateTime;
use uuid::Uuid;

/// A signed token and when it ends.
pub struct Token {
    /// The JWT.
    pub jwt: SecretString,
    /// Its `exp`.
    pub expires_at: OffsetDateTime,
}

/// The two tokens that a sign-in or a refresh hands out.
pub struct TokenPair {
    /// For the `authorization` metadata.
    pub access: Token,
    /// For the next Refresh.
    pub refresh: Token,
    /// The session of both.
    pub session: crate::ids::SessionId,
}

/// A new `jti`: 122 random bits, for a token that its signature protects.
#[must_use]
pub fn new_jti() -> String {
    Uuid::new_v4().simple().to_string()
}
