//! Signs people up, in and out, and answers for their tokens.

mod accounts;
pub mod attempt;
mod email_changed;
mod exchange;
mod failures;
mod introspect;
mod login;
mod named;
mod password;
mod refresh;
mod register;
mod reset;
mod rpc;
mod turns;
mod whoami;

use std::sync::Arc;

use crate::{
    audit::Refusals,
    config::Lifetimes,
    db::Db,
    error::Error,
    limits::{Guess, Limits},
    passwords::Hasher,
    permissions::Engine,
    proto::v1::ErrorReason,
    sessions::{Authenticator, SessionCache},
    tenants,
    tokens::Keyring,
};

pub use email_changed::EmailChanged;
pub use failures::{Failures, SignIn};
pub use named::TenantlessSignIn;
pub use reset::{MailSlot, Mails};

/// All that authentication works with. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    /// Postgres.
    pub db: Db,
    /// Which sessions are live.
    pub cache: SessionCache,
    /// What subjects hold.
    pub engine: Engine,
    /// Whose a token is.
    pub authenticator: Authenticator,
    /// Signs and verifies tokens.
    pub keyring: Arc<Keyring>,
    /// Hashes passwords.
    pub hasher: Hasher,
    /// When failed sign-ins are answered.
    pub failures: Arc<Failures>,
    /// Which tenants names stood for.
    pub seen: Arc<tenants::Seen>,
    /// The lives of tokens and sessions.
    pub lifetimes: Lifetimes,
    /// Counts sign-ins and the like.
    pub limits: Limits,
    /// Records what is refused.
    pub refusals: Arc<Refusals>,
    /// Sends mails with new passwords' tokens; `None` where no mail is sent.
    pub mails: Option<Arc<Mails>>,
    /// The shortest password that the server allows.
    pub min_length: usize,
    /// Whether Register may create tenants.
    pub tenant_registration: bool,
    /// Which addresses count where no tenant is named.
    pub tenantless: TenantlessSignIn,
}

/// Ends a guess at a password by what was wrong, if anything.
pub async fn end_guess(guess: Guess, error: Option<&Error>) {
    match error.map(Error::reason) {
        None => guess.right().await,
        // One that was given up may have been right, and counts like a wrong one.
        Some(ErrorReason::InvalidCredentials | ErrorReason::Cancelled) => guess.wrong().await,
        Some(_) => guess.abandoned().await,
    }
}

/// UNAUTHENTICATED, the same for whatever was wrong with a sign-in.
pub fn invalid_credentials() -> Error {
    Error::refused(ErrorReason::InvalidCredentials, "the credentials are not valid")
}
