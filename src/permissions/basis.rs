//! What a decision is based on: how fresh it must be, and what it has seen.

use super::Engine;
use crate::{
    error::{Error, Result},
    proto::v1::Consistency,
};

const FIELD: &str = "consistency_token";

/// What a decision is based on.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    /// Whether memory may answer, or Postgres must: `MinimizeLatency` or
    /// `FullyConsistent`.
    pub consistency: Consistency,
    /// The feed's horizon before the decision.
    horizon: u64,
}

impl Engine {
    /// Makes memory as fresh as a request asks for, where memory may answer at
    /// all.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for a token that is not ours, is missing, or asks for
    /// something else than the consistency.
    pub async fn basis(&self, asked: Consistency, token: &str) -> Result<Basis> {
        use Consistency as C;
        let revision = if token.is_empty() { None } else { Some(self.feed.open(token)?) };
        let fresh = match (asked, revision) {
            (C::Unspecified | C::MinimizeLatency, None) => true,
            (C::FullyConsistent, _) => false,
            (C::Unspecified | C::AtLeastAsFresh, Some(seen)) => {
                Box::pin(self.feed.reach(seen)).await
            }
            (C::AtLeastAsFresh, None) => {
                return Err(Error::field(FIELD, "must be given with AT_LEAST_AS_FRESH"));
            }
            (C::MinimizeLatency, Some(_)) => {
                return Err(Error::field(FIELD, "must be empty with MINIMIZE_LATENCY"));
            }
        };
        let consistency = if fresh { C::MinimizeLatency } else { C::FullyConsistent };
        Ok(Basis { consistency, horizon: self.feed.horizon() })
    }

    /// The consistency token of a decision that was made on this basis.
    ///
    /// # Errors
    /// INTERNAL when it can't be sealed, which no key makes it.
    pub fn token(&self, basis: Basis) -> Result<String> {
        self.feed.token(basis.horizon)
    }
}
