//! The decision itself: pure, so that it can be tested against a model.

use super::{Permission, Scope, Standing, scope};
use crate::proto::v1::DecisionReason;

/// Decides whether a subject may do this within the request's scope. `None`
/// stands for a tenant that is not there; only `Granted` allows.
#[must_use]
pub fn decide(
    standing: Option<&Standing>,
    wanted: &Permission<'_>,
    requested: &Scope,
) -> DecisionReason {
    let Some(standing) = standing.filter(|s| s.tenant_active && s.user_known) else {
        return DecisionReason::NotGranted;
    };
    if !standing.user_active {
        return DecisionReason::SubjectDisabled;
    }
    let mut permitting = standing.grants.iter().filter(|grant| grant.permits(wanted)).peekable();
    if permitting.peek().is_none() {
        return DecisionReason::NotGranted;
    }
    if permitting.any(|grant| scope::applies(grant.scope.as_ref(), requested)) {
        DecisionReason::Granted
    } else {
        DecisionReason::ScopeMismatch
    }
}
