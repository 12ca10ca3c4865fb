//! The decision itself: pure but for the time, so that it can be tested against
//! a model.

use super::{Permission, Scope, Standing, UserStanding};
use crate::proto::v1::DecisionReason;

/// Decides whether a subject may do this within the request's scope. `None`
/// stands for a tenant that is not there; only `Granted` allows.
#[must_use]
pub fn decide(
    standing: Option<&Standing>,
    wanted: &Permission<'_>,
    requested: &Scope,
) -> DecisionReason {
    let Some(standing) = standing.filter(|s| s.tenant.get().active) else {
        return DecisionReason::NotGranted;
    };
    match standing.user {
        UserStanding::Unknown => return DecisionReason::NotGranted,
        UserStanding::Disabled => return DecisionReason::SubjectDisabled,
        UserStanding::Active => {}
    }
    let mut reason = DecisionReason::NotGranted;
    for grant in standing.grants().filter(|grant| grant.permits(wanted)) {
        if grant.applies(requested) {
            return DecisionReason::Granted;
        }
        reason = DecisionReason::ScopeMismatch;
    }
    reason
}
