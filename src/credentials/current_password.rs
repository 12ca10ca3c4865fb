//! Verifies the caller's current password, for calls that require the password in addition to an
//! access token.

use super::invalid_credentials;
use crate::{
    audit::{self, Event, EventKind},
    db::Db,
    error::{Error, Result},
    gate::Caller,
    limits::Limits,
    passwords::{Comparison, PresentedPassword, QueueSlot},
};

/// The inputs of one verification.
pub struct Attempt<'a> {
    pub caller: &'a Caller,
    /// The caller's email, normalised by `email::normalized`.
    pub normalized_email: &'a str,
    /// The password in the request.
    pub password: &'a PresentedPassword,
    /// The stored hash; `None` for a user without a password.
    pub stored_hash: Option<String>,
    /// The kind of the audit event that records a wrong password.
    pub failure_event: EventKind,
}

/// Verifies the password. Returns the stored hash that the password matched. The account's limit
/// of wrong passwords applies ([`Limits::guess`]). A wrong password is recorded in the audit trail.
///
/// # Errors
/// UNAUTHENTICATED when the password is wrong; `RATE_LIMITED` after too many wrong passwords.
pub async fn verify(
    db: &Db,
    limits: &Limits,
    slot: &mut QueueSlot,
    attempt: Attempt<'_>,
) -> Result<String> {
    let caller = attempt.caller;
    let guess =
        limits.guess(caller.own_tenant(), attempt.normalized_email, caller.origin().ip).await?;
    let result = compare(db, slot, attempt).await;
    guess.end(result.as_ref().err()).await;
    result
}

async fn compare(db: &Db, slot: &mut QueueSlot, attempt: Attempt<'_>) -> Result<String> {
    let Attempt { caller, password, stored_hash, failure_event, .. } = attempt;
    // For a user without a password, `QueueSlot::verify` takes the same time and reports a
    // mismatch.
    let comparison = slot.verify(caller.own_tenant(), password, stored_hash.as_deref()).await?;
    match stored_hash.filter(|_| comparison != Comparison::Mismatch) {
        Some(matching_hash) => Ok(matching_hash),
        None => Err(record_refusal(db, caller, failure_event).await?),
    }
}

/// Records a wrong password in the audit trail. Returns the error for the client.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn record_refusal(db: &Db, caller: &Caller, failure_event: EventKind) -> Result<Error> {
    let event = Event::new(failure_event).target(caller.user().0);
    audit::record_in_own_transaction(db, caller.own_tenant(), &caller.actor(), event).await?;
    Ok(invalid_credentials())
}
