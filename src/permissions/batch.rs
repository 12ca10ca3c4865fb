//! Batches: many questions, for which Postgres is asked once for each hundred subjects
//! at most.

use tonic::{Code, Status};

use super::{Permission, Permissions, decide::decide, engine::Standings, scope};
use crate::{
    error::{Result, reason_text},
    gate::Reaching,
    ids::UserId,
    pace::Pace,
    proto::v1::{
        BatchCheckError, BatchCheckItem, BatchCheckResult, Consistency, DecisionReason, ErrorReason,
    },
};

/// The method, as the audit trail names it.
const PATH: &str = "/tenantry.v1.PermissionService/BatchCheck";

impl Permissions {
    /// Answers the questions of a batch, in their order. What is wrong with a
    /// question is its own answer; what is wrong with us fails the whole call.
    pub(super) async fn decide_batch(
        &self,
        reaching: &Reaching,
        items: Vec<BatchCheckItem>,
        consistency: Consistency,
    ) -> Result<Vec<BatchCheckResult>> {
        let subjects: Vec<_> = items.iter().map(|item| subject(reaching, item)).collect();
        let mut users: Vec<_> = subjects.iter().flatten().copied().collect();
        users.sort_unstable();
        users.dedup();
        let (caller, _) = reaching.within();
        let standings = self.engine.standings(caller.tenant(), &users, consistency).await?;
        let mut results = Vec::with_capacity(items.len());
        let mut pace = Pace::new();
        for (item, subject) in items.into_iter().zip(subjects) {
            results.push(answer(item, subject, &standings));
            pace.pause().await;
        }
        Ok(results)
    }

    /// Records that questions of a batch were refused: the call itself is answered.
    pub(super) async fn record_refused(&self, reaching: &Reaching, results: &[BatchCheckResult]) {
        let refused = |error: &BatchCheckError| error.code == Code::PermissionDenied as i32;
        if results.iter().filter_map(|result| result.error.as_ref()).any(refused) {
            let (caller, _) = reaching.within();
            let reason = reason_text(ErrorReason::PermissionMissing);
            self.refusals.record(caller.refusal(PATH, reason)).await;
        }
    }
}

fn subject(reaching: &Reaching, item: &BatchCheckItem) -> Result<UserId> {
    let named = UserId::parse_optional("user_id", &item.user_id)?;
    reaching.acting_for(named).map(|(_, user)| user)
}

fn answer(
    item: BatchCheckItem,
    subject: Result<UserId>,
    standings: &Standings,
) -> BatchCheckResult {
    match decide_item(&item, subject, standings) {
        Ok(reason) => BatchCheckResult {
            correlation_id: item.correlation_id,
            allowed: reason == DecisionReason::Granted,
            reason: reason.into(),
            error: None,
        },
        Err(error) => {
            let status = Status::from(error);
            let (code, message) = (status.code() as i32, status.message().to_owned());
            BatchCheckResult {
                correlation_id: item.correlation_id,
                error: Some(BatchCheckError { code, message }),
                ..BatchCheckResult::default()
            }
        }
    }
}

fn decide_item(
    item: &BatchCheckItem,
    subject: Result<UserId>,
    standings: &Standings,
) -> Result<DecisionReason> {
    let permission = Permission::concrete("permission", &item.permission)?;
    let requested = scope::requested(item.scope.as_ref())?;
    let standing = standings.get(&subject?);
    Ok(decide(standing.map(AsRef::as_ref), &permission, &requested))
}
