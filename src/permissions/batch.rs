//! Batches: many questions. The subjects are read some at a time, and forgotten once their
//! questions are answered: a batch may be about more than fits into memory.

use std::iter::Peekable;

use tonic::{Code, Status};

use super::{Permission, Permissions, Standing, decide::decide, engine::READ_AT_ONCE, scope};
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
        let (caller, _) = reaching.within();
        let mut results: Vec<_> = items.iter().map(|_| BatchCheckResult::default()).collect();
        let mut pace = Pace::new();
        let mut questions = Vec::with_capacity(items.len());
        for (number, item) in items.into_iter().enumerate() {
            match subject(reaching, &item) {
                Ok(subject) => questions.push(Question { subject, number, item }),
                Err(error) => results[number] = answer(item, Err(error)),
            }
        }
        // Those about one subject one after the other.
        questions.sort_by_key(|question| question.subject);
        let mut questions = questions.into_iter().peekable();
        while questions.peek().is_some() {
            let (asked, users) = next_asked(&mut questions);
            let standings = self.engine.standings(caller.tenant(), &users, consistency).await?;
            for Question { subject, number, item } in asked {
                let standing = standings.get(&subject).map(AsRef::as_ref);
                results[number] = answer(item, Ok(standing));
                pace.pause().await;
            }
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

/// A question of a batch.
struct Question {
    subject: UserId,
    /// Its place in the batch.
    number: usize,
    item: BatchCheckItem,
}

/// The questions about the next few subjects, and these.
fn next_asked(
    questions: &mut Peekable<impl Iterator<Item = Question>>,
) -> (Vec<Question>, Vec<UserId>) {
    let (mut asked, mut users) = (Vec::new(), Vec::<UserId>::with_capacity(READ_AT_ONCE));
    while let Some(question) =
        questions.next_if(|next| users.last() == Some(&next.subject) || users.len() < READ_AT_ONCE)
    {
        if users.last() != Some(&question.subject) {
            users.push(question.subject);
        }
        asked.push(question);
    }
    (asked, users)
}

fn subject(reaching: &Reaching, item: &BatchCheckItem) -> Result<UserId> {
    let named = UserId::parse_optional("user_id", &item.user_id)?;
    reaching.acting_for(named).map(|(_, user)| user)
}

fn answer(item: BatchCheckItem, standing: Result<Option<&Standing>>) -> BatchCheckResult {
    match decide_item(&item, standing) {
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
    standing: Result<Option<&Standing>>,
) -> Result<DecisionReason> {
    let permission = Permission::concrete("permission", &item.permission)?;
    let requested = scope::requested(item.scope.as_ref())?;
    Ok(decide(standing?, &permission, &requested))
}
