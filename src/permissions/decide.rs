//! The decision function. [`Standing`] has the assignments of the subject, which `store.rs` reads.
//! The result depends only on the arguments and the clock, so a test can compare the function with a
//! model.

use super::{Permission, Scope, Standing, UserStanding};
use crate::proto::v1::DecisionReason;

/// Decides whether a subject has a permission in the scope of the request. `standing` is `None`
/// when the tenant does not exist. Only `Granted` allows the request.
#[must_use]
pub fn decide(
    standing: Option<&Standing>,
    permission: &Permission<'_>,
    requested: &Scope,
) -> DecisionReason {
    let Some(standing) = standing.filter(|standing| standing.tenant.get().active) else {
        return DecisionReason::NotGranted;
    };
    match standing.user {
        UserStanding::Unknown => return DecisionReason::NotGranted,
        UserStanding::Disabled => return DecisionReason::SubjectDisabled,
        UserStanding::Active => {}
    }
    let mut reason = DecisionReason::NotGranted;
    for grant in standing.unexpired_grants().filter(|grant| grant.permits(permission)) {
        if grant.applies(requested) {
            return DecisionReason::Granted;
        }
        reason = DecisionReason::ScopeMismatch;
    }
    reason
}
