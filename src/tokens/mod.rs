//! Access and refresh tokens: JWTs. The two kinds have different keys, `typ` and `aud`
//! (RFC 8725, sections 3.11 and 3.12), so a token of one kind can't be used as the other kind.

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
mod statement;
mod transit;

pub use assertion::AssertionKey;
pub use claims::{Claims, LEEWAY_SECONDS, SubjectType, TokenKind};
pub use keyring::{Keyring, TokenContent, VerifiedBy};
pub use opaque::OpaqueTokens;
pub use reload::{KeyringReload, Renew};
pub use source::{KeyPaths, KeySource};
pub use statement::{Statement, StatementKeys};
pub use transit::TransitKeys;

use secrecy::SecretString;
use time::OffsetDateTime;
use uuid::Uuid;

/// A signed token.
pub struct Token {
    pub jwt: SecretString,
    /// The expiry, `exp`.
    pub expires_at: OffsetDateTime,
}

/// The tokens that a sign-in or a refresh returns.
pub struct TokenPair {
    /// Authenticates calls, in the metadata `authorization`.
    pub access: Token,
    /// Accepted by the next call of `Refresh`.
    pub refresh: Token,
    /// The session of both tokens.
    pub session: crate::ids::SessionId,
}

/// A random `jti`. Its 122 random bits are enough, because the token is signed.
#[must_use]
pub fn new_jti() -> String {
    Uuid::new_v4().simple().to_string()
}
