//! Consistency of one decision: how fresh its data must be, and which changes it has seen.

use super::Engine;
use crate::{
    error::{Error, Result},
    proto::v1::Consistency,
};

const FIELD: &str = "consistency_token";

/// Consistency of one decision.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    /// `MinimizeLatency` when the cache may answer, `FullyConsistent` when Postgres must be read.
    pub consistency: Consistency,
    /// The feed's horizon, taken before the decision.
    horizon: u64,
}

impl Engine {
    /// Brings the cache up to the freshness that a request asks for. When the cache can't reach it
    /// in time, the decision must read Postgres.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` for an invalid token, for a missing token, and for a token that
    /// contradicts the requested consistency.
    pub async fn basis(&self, asked: Consistency, token: &str) -> Result<Basis> {
        use Consistency as C;
        let revision = if token.is_empty() { None } else { Some(self.feed.open(token)?) };
        let fresh = match (asked, revision) {
            (C::Unspecified | C::MinimizeLatency, None) => true,
            (C::FullyConsistent, _) => false,
            (C::Unspecified | C::AtLeastAsFresh, Some(seen)) => {
                Box::pin(self.feed.wait_for_revision(seen)).await
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

    /// The consistency token of a decision that was made with this basis.
    ///
    /// # Errors
    /// Returns INTERNAL when sealing the token fails, which does not happen with a valid key.
    pub fn token(&self, basis: Basis) -> Result<String> {
        self.feed.token(basis.horizon)
    }
}
