//! `BatchCheck`: many questions in one call. The subjects are read in groups. Each group is dropped
//! when its questions are answered, because all subjects of a batch together may exceed the memory.

use std::mem;

use tonic::{Code, Status};

use super::{Permission, Permissions, Standing, decide::decide, engine::SUBJECTS_PER_READ, scope};
use crate::{
    concurrency::pace::Pace,
    error::{Result, reason_text},
    gate::SelfOrPermitted,
    ids::UserId,
    proto::v1::{
        BatchCheckError, BatchCheckItem, BatchCheckResult, Consistency, DecisionReason, ErrorReason,
    },
};

/// The method's path, as the audit trail records it.
const PATH: &str = "/tenantry.v1.PermissionService/BatchCheck";

impl Permissions {
    /// Answers the questions of a batch, in the order of the request. An invalid question gets an
    /// error of its own. A failure of the server fails the whole call.
    pub(super) async fn decide_batch(
        &self,
        reaching: &SelfOrPermitted,
        mut items: Vec<BatchCheckItem>,
        consistency: Consistency,
    ) -> Result<Vec<BatchCheckResult>> {
        let subjects: Vec<_> = items.iter().map(|item| subject(reaching, item)).collect();
        let mut users: Vec<_> = subjects.iter().flatten().copied().collect();
        users.sort_unstable();
        users.dedup();
        let (caller, _) = reaching.within();
        let mut results: Vec<_> = items.iter().map(|_| BatchCheckResult::default()).collect();
        let mut questions: Vec<_> = Vec::with_capacity(items.len());
        for (number, (item, subject)) in items.iter_mut().zip(subjects).enumerate() {
            match subject {
                Ok(subject) => questions.push((subject, number)),
                Err(error) => results[number] = answer(item, Err(error)),
            }
        }
        let mut pace = Pace::new();
        for users in users.chunks(SUBJECTS_PER_READ) {
            let standings = self.engine.standings(caller.tenant(), users, consistency).await?;
            let group = users[0]..=users[users.len() - 1];
            for &(subject, number) in questions.iter().filter(|(user, _)| group.contains(user)) {
                let standing = standings.get(&subject).map(AsRef::as_ref);
                results[number] = answer(&mut items[number], Ok(standing));
                pace.pause().await;
            }
        }
        Ok(results)
    }

    /// Records in the audit trail that questions of a batch were refused. The call itself
    /// succeeds, so the gate does not record them.
    pub(super) async fn record_refused(
        &self,
        reaching: &SelfOrPermitted,
        results: &[BatchCheckResult],
    ) {
        let is_refusal = |error: &BatchCheckError| error.code == Code::PermissionDenied as i32;
        if results.iter().filter_map(|result| result.error.as_ref()).any(is_refusal) {
            let (caller, _) = reaching.within();
            let reason = reason_text(ErrorReason::PermissionMissing);
            self.refusals.record(caller.refusal(PATH, reason)).await;
        }
    }
}

fn subject(reaching: &SelfOrPermitted, item: &BatchCheckItem) -> Result<UserId> {
    let requested_user = UserId::parse_optional("user_id", &item.user_id)?;
    reaching.acting_for(requested_user).map(|(_, user)| user)
}

fn answer(item: &mut BatchCheckItem, standing: Result<Option<&Standing>>) -> BatchCheckResult {
    let correlation_id = mem::take(&mut item.correlation_id);
    match decide_item(item, standing) {
        Ok(reason) => BatchCheckResult {
            correlation_id,
            allowed: reason == DecisionReason::Granted,
            reason: reason.into(),
            error: None,
        },
        Err(error) => {
            let status = Status::from(error);
            let (code, message) = (status.code() as i32, status.message().to_owned());
            BatchCheckResult {
                correlation_id,
                error: Some(BatchCheckError { code, message }),
                ..BatchCheckResult::default()
            }
        }
    }
}

fn decide_item(
    item: &BatchCheckItem,
    standing: Result<Option<&Standing>>,
) -> Result<DecisionReason> {
    let permission = Permission::concrete("permission", &item.permission)?;
    let requested = scope::requested(item.scope.as_ref())?;
    Ok(decide(standing?, &permission, &requested))
}
