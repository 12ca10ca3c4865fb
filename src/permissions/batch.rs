//! `BatchCheck`: many decisions in one call. The standings of the subjects are read in groups. Each
//! group is dropped after the decisions about its subjects, because all standings of a batch
//! together may exceed the memory.

use std::mem;

use tonic::{Code, Status};

use super::{Permission, Permissions, Standing, decide::decide, engine::SUBJECTS_PER_READ, scope};
use crate::{
    concurrency::pace::Pace,
    error::{Result, reason_text},
    gate::SelfOrPermitted,
    ids::SubjectId,
    proto::v1::{
        BatchCheckError, BatchCheckItem, BatchCheckResult, Consistency, DecisionReason, ErrorReason,
    },
};

/// The method's path, as the audit trail records it.
const PATH: &str = "/tenantry.v1.PermissionService/BatchCheck";

impl Permissions {
    /// Decides the items of a batch. The results have the order of the request. The result of an
    /// invalid item is an error. A failure of the server fails the whole call.
    pub(super) async fn decide_batch(
        &self,
        access: &SelfOrPermitted,
        mut items: Vec<BatchCheckItem>,
        consistency: Consistency,
    ) -> Result<Vec<BatchCheckResult>> {
        let subjects: Vec<_> = items.iter().map(|item| subject(access, item)).collect();
        let mut sorted_subjects: Vec<_> = subjects.iter().flatten().copied().collect();
        sorted_subjects.sort_unstable();
        sorted_subjects.dedup();
        let (caller, _) = access.caller_and_reach();
        let mut results: Vec<_> = items.iter().map(|_| BatchCheckResult::default()).collect();
        let mut valid_items: Vec<_> = Vec::with_capacity(items.len());
        for (index, (item, subject)) in items.iter_mut().zip(subjects).enumerate() {
            match subject {
                Ok(subject) => valid_items.push((subject, index)),
                Err(error) => results[index] = result_of(item, Err(error)),
            }
        }
        let mut pace = Pace::new();
        for group in sorted_subjects.chunks(SUBJECTS_PER_READ) {
            let standings = self.engine.standings(caller.tenant(), group, consistency).await?;
            // The group is sorted, so the range contains no subject of another group.
            let range = group[0]..=group[group.len() - 1];
            for &(subject, index) in valid_items.iter().filter(|(s, _)| range.contains(s)) {
                let standing = standings.get(&subject).map(AsRef::as_ref);
                results[index] = result_of(&mut items[index], Ok(standing));
                pace.pause().await;
            }
        }
        Ok(results)
    }

    /// Records in the audit trail that items of a batch were refused, because the caller lacks the
    /// permission to check other subjects. The call itself succeeds, so the gate records nothing.
    pub(super) async fn record_refused(
        &self,
        access: &SelfOrPermitted,
        results: &[BatchCheckResult],
    ) {
        let is_refusal = |error: &BatchCheckError| error.code == Code::PermissionDenied as i32;
        if results.iter().filter_map(|result| result.error.as_ref()).any(is_refusal) {
            let (caller, _) = access.caller_and_reach();
            let reason = reason_text(ErrorReason::PermissionMissing);
            self.refusals.record(caller.refusal(PATH, reason)).await;
        }
    }
}

/// The subject of an item, if the caller may check this subject.
fn subject(access: &SelfOrPermitted, item: &BatchCheckItem) -> Result<SubjectId> {
    let requested_user = SubjectId::parse_optional("user_id", &item.user_id)?;
    access.caller_and_subject(requested_user).map(|(_, user)| user)
}

fn result_of(item: &mut BatchCheckItem, standing: Result<Option<&Standing>>) -> BatchCheckResult {
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
    let permission = Permission::parse_without_wildcards("permission", &item.permission)?;
    let requested = scope::parse_requested(item.scope.as_ref())?;
    Ok(decide(standing?, &permission, &requested))
}
