//! `ListSubjects`: the subjects that have a permission within a scope.

use super::{
    Permission, Permissions, Scope,
    holders::{self, HeldRow, HolderRow},
    scope,
};
use crate::{
    api::paging::{Position, ROWS_PER_READ},
    clock,
    error::Result,
    gate::Caller,
    ids::TenantId,
    proto::{
        json,
        v1::{ListSubjectsRequest, ListSubjectsResponse, Subject, SubjectType},
    },
};

/// Minimum number of assignments that the server examines for a page; fewer only if no more exist.
/// With a smaller number, a client that requests small pages would need many calls when few
/// assignments match the scope.
const ASSIGNMENTS_PER_PAGE: i64 = 250;

impl Permissions {
    /// A page of the subjects for which a Check with the same permission and scope is granted.
    pub(super) async fn subjects_page(
        &self,
        caller: &Caller,
        request: ListSubjectsRequest,
    ) -> Result<ListSubjectsResponse> {
        let permission = Permission::parse_without_wildcards("permission", &request.permission)?;
        let requested = scope::parse_requested(request.scope.as_ref())?;
        let tenant = caller.tenant();
        let mut page = self.pages.begin(caller.page_caller(), &request)?;
        if let Some(read) = page.next_read(ROWS_PER_READ) {
            let max_examined = read.limit.max(ASSIGNMENTS_PER_PAGE);
            let mut tx = self.db.begin_without_cipher(tenant).await?;
            let covering_permissions = permission.covering_permissions();
            let after = read.after_id();
            let holders =
                holders::next_batch(&mut tx, tenant, &covering_permissions, after, max_examined)
                    .await?;
            let to_subject = |row: HolderRow| Ok(to_subject(tenant, row, &requested));
            page.add_rows(holders, |row| Position::by_id(row.user_id), to_subject).await?;
        }
        let (subjects, next_page_token) = page.finish()?;
        Ok(ListSubjectsResponse { subjects, next_page_token })
    }
}

/// The holder with the first assignment that applies; `None` when no assignment applies.
fn to_subject(tenant: TenantId, row: HolderRow, requested: &Scope) -> Option<Subject> {
    let with_applying_scope = |held: HeldRow| {
        let scope = scope::from_stored(held.scope.as_deref(), tenant, held.assignment_id).ok()?;
        scope::applies(scope.as_ref(), requested).then_some((held, scope))
    };
    let (held, scope) = row.held.0.into_iter().find_map(with_applying_scope)?;
    Some(Subject {
        user_id: row.user_id.to_string(),
        r#type: subject_type(&row.kind).into(),
        role_name: held.role_name,
        scope: scope.as_ref().map(json::to_struct),
        expire_time: held.expires_at.map(clock::timestamp_from_seconds),
    })
}

fn subject_type(kind: &str) -> SubjectType {
    match kind {
        "service_account" => SubjectType::ServiceAccount,
        _ => SubjectType::User,
    }
}
