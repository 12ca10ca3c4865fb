//! The consistency of one decision: where its data comes from, and which changes the data includes.

use super::Engine;
use crate::{
    error::{Error, Result},
    feed::{Reached, Revision},
    ids::TenantId,
    proto::v1::{Consistency, ErrorReason},
};

const FIELD: &str = "consistency_token";

/// The consistency of one decision.
#[derive(Clone, Copy, Debug)]
pub struct Basis {
    /// `MinimizeLatency` when the decision may use the cache; `FullyConsistent` when the decision
    /// must read Postgres.
    pub consistency: Consistency,
    /// The horizon of the feed, read before the decision. The decision includes all changes before
    /// the horizon.
    horizon: u64,
}

impl Engine {
    /// Waits until the cache is as fresh as the request requires. If this takes too long, the basis
    /// requires that the decision reads Postgres. A query uses a connection of the share of
    /// `charged_tenant`.
    ///
    /// # Errors
    /// Returns `INVALID_ARGUMENT` for an invalid token, for a missing token, and for a token that
    /// contradicts the requested consistency. Returns FAILED_PRECONDITION when a restore or a
    /// failover lost transactions that the token includes. Returns UNAVAILABLE when Postgres has not
    /// reached the revision of the token, so its data is older than the token.
    pub async fn wait_for_basis(
        &self,
        charged_tenant: TenantId,
        requested: Consistency,
        token: &str,
    ) -> Result<Basis> {
        use Consistency as C;
        let revision = if token.is_empty() { None } else { Some(self.feed.open(token)?) };
        let is_fresh = match (requested, revision) {
            (C::Unspecified | C::MinimizeLatency, None) => true,
            (C::FullyConsistent, _) => false,
            (C::Unspecified | C::AtLeastAsFresh, Some(revision)) => {
                Box::pin(self.feed.wait_for_revision(revision)).await
            }
            (C::AtLeastAsFresh, None) => {
                return Err(Error::field(FIELD, "must be given with AT_LEAST_AS_FRESH"));
            }
            (C::MinimizeLatency, Some(_)) => {
                return Err(Error::field(FIELD, "must be empty with MINIMIZE_LATENCY"));
            }
        };
        if let Some(revision) = revision {
            self.require_reached(charged_tenant, revision).await?;
        }
        let consistency = if is_fresh { C::MinimizeLatency } else { C::FullyConsistent };
        Ok(Basis { consistency, horizon: self.feed.horizon() })
    }

    /// Refuses a revision that Postgres has not reached or has lost.
    async fn require_reached(&self, charged_tenant: TenantId, revision: Revision) -> Result<()> {
        let reached = Box::pin(self.feed.reached(&self.db, charged_tenant, revision)).await?;
        let (reason, text) = match reached {
            Reached::Yes => return Ok(()),
            Reached::NotYet => (
                ErrorReason::StoreUnavailable,
                "the database lacks changes that the consistency token includes",
            ),
            Reached::Lost => (
                ErrorReason::TokenOfLostData,
                "a restore or a failover may have lost changes that the consistency token \
                 includes: drop the token",
            ),
        };
        Err(Error::refused(reason, text))
    }

    /// The consistency token of a decision that was made with this basis.
    ///
    /// # Errors
    /// Returns INTERNAL when sealing the token fails, which does not happen with a valid key.
    pub fn consistency_token(&self, basis: Basis) -> Result<String> {
        self.feed.token(basis.horizon)
    }
}
