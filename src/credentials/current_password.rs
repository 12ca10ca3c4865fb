//! A caller's current password, asked for where an access token alone must not do.

use super::invalid_credentials;
use crate::{
    audit::{self, Event, EventKind},
    db::Db,
    error::{Error, Result},
    gate::Caller,
    limits::Limits,
    passwords::{Outcome, Presented, QueueSlot},
};

/// What a caller says its password is.
pub struct Attempt<'a> {
    /// The caller.
    pub caller: &'a Caller,
    /// Its email, in the form that is compared.
    pub email_key: &'a str,
    /// What it says.
    pub password: &'a Presented,
    /// The hash that is kept; `None` for a user without a password.
    pub kept: Option<String>,
    /// The event that records a failure.
    pub failed: EventKind,
}

/// The hash that the password was found right by. It counts as a guess, and a failure is
/// recorded.
///
/// # Errors
/// UNAUTHENTICATED when it is wrong, `RATE_LIMITED` after too many that were.
pub async fn verify(
    db: &Db,
    limits: &Limits,
    slot: &mut QueueSlot,
    attempt: Attempt<'_>,
) -> Result<String> {
    let caller = attempt.caller;
    let guess = limits.guess(caller.home(), attempt.email_key, caller.origin().ip).await?;
    let verified = compare(db, slot, attempt).await;
    guess.end(verified.as_ref().err()).await;
    verified
}

async fn compare(db: &Db, slot: &mut QueueSlot, attempt: Attempt<'_>) -> Result<String> {
    let Attempt { caller, password, kept, failed, .. } = attempt;
    let outcome = slot.verify(caller.home(), password, kept.as_deref()).await?;
    match kept.filter(|_| outcome != Outcome::Wrong) {
        Some(kept) => Ok(kept),
        None => Err(refusal(db, caller, failed).await?),
    }
}

/// The refusal of a wrong password, once it is recorded.
///
/// # Errors
/// When Postgres is away.
pub async fn refusal(db: &Db, caller: &Caller, failed: EventKind) -> Result<Error> {
    let event = Event::new(failed).target(caller.user().0);
    audit::record_alone(db, caller.home(), &caller.actor(), event).await?;
    Ok(invalid_credentials())
}
