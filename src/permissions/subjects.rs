//! The list of subjects: who may do this, in this tenant, within this scope?

use uuid::Uuid;

use super::{
    Permission, Permissions, Scope,
    holders::{self, HeldRow, HolderRow},
    scope,
};
use crate::{
    clock,
    error::Result,
    gate::Caller,
    json, listing,
    proto::v1::{ListSubjectsRequest, ListSubjectsResponse, Subject, SubjectType},
};

/// How many assignments a page looks at, at least: with a scope that few of them
/// match, a page of a few would take many calls.
const LOOK_AT: i64 = 250;

impl Permissions {
    /// A page of those whom a Check of the same question would allow.
    pub(super) async fn subjects(
        &self,
        caller: &Caller,
        request: ListSubjectsRequest,
    ) -> Result<ListSubjectsResponse> {
        let permission = Permission::concrete("permission", &request.permission)?;
        let requested = scope::requested(request.scope.as_ref())?;
        let tenant = caller.tenant();
        let bound = ("subjects", tenant, &request.permission, &request.scope);
        let page = listing::page(request.page_size, &request.page_token, &bound)?;
        let look_at = page.limit().max(LOOK_AT);

        let mut tx = self.db.begin(tenant).await?;
        let forms = permission.forms();
        let rows = holders::next(&mut tx, tenant, &forms, page.after, look_at).await?;
        let end = rows.last().filter(|row| row.looked_at == look_at).map(|row| row.user_id);
        let subjects = rows.into_iter().filter_map(|row| subject(row, &requested)).collect();

        let (subjects, mut next_page_token) = page.cut(subjects, |(id, _)| *id);
        if next_page_token.is_empty()
            && let Some(end) = end
        {
            next_page_token = page.token(end);
        }
        let subjects = subjects.into_iter().map(|(_, subject)| subject).collect();
        Ok(ListSubjectsResponse { subjects, next_page_token })
    }
}

/// The holder, by the first of its assignments that applies.
fn subject(row: HolderRow, requested: &Scope) -> Option<(Uuid, Subject)> {
    let applies = |held: &HeldRow| scope::applies(held.scope.as_ref(), requested);
    let held = row.held.0.into_iter().find(applies)?;
    let subject = Subject {
        user_id: row.user_id.to_string(),
        r#type: subject_type(&row.kind).into(),
        role_name: held.role_name,
        scope: held.scope.as_ref().map(json::to_struct),
        expire_time: held.expires_at.map(clock::timestamp_of),
    };
    Some((row.user_id, subject))
}

fn subject_type(kind: &str) -> SubjectType {
    match kind {
        "service_account" => SubjectType::ServiceAccount,
        _ => SubjectType::User,
    }
}
