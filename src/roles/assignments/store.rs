//! SQL for role assignments.
//!
//! - Rule: `keep_scope` (`migrations/0011_scopes.sql`) stores each scope in its canonical form
//!   (trigger).
//! - Rule: `canonical_scope` (`migrations/0011_scopes.sql`) decides the canonical form of a scope,
//!   with `canonical_number`.
//! - Rule: `scope_key_of` (`migrations/0011_scopes.sql`) decides which scopes are equal.

use serde_json::Value;
use time::OffsetDateTime;

use crate::{
    api::{
        bounds::{ASSIGNMENTS_OF_SUBJECT, EXPIRED_ASSIGNMENTS_KEPT, SCOPE_BYTES_OF_SUBJECT},
        filter::Filter,
        paging::{LARGE_ROWS_PER_READ, Page, Position},
    },
    db::TenantTx,
    error::Result,
    ids::{AssignmentId, RoleId, SubjectId, TenantId},
    proto::{json::Stored, v1::RoleAssignment},
};

/// An assignment to insert.
pub struct NewAssignment {
    pub id: AssignmentId,
    /// The user or service account that gets the role.
    pub user: SubjectId,
    pub role: RoleId,
    /// The scope in which the assignment applies; `None` means any scope.
    pub scope: Option<Value>,
    /// When the assignment expires; `None` means never.
    pub expires_at: Option<OffsetDateTime>,
}

impl NewAssignment {
    /// The inserted row, with the columns that Postgres computed.
    pub fn row(
        self,
        tenant: TenantId,
        role_name: String,
        computed: ComputedColumns,
    ) -> AssignmentRow {
        AssignmentRow {
            tenant_id: tenant,
            assignment_id: self.id,
            user_id: self.user,
            role_id: self.role,
            role_name,
            scope: computed.scope,
            expires_at: self.expires_at,
            created_at: computed.created_at,
        }
    }
}

/// A row of `role_assignments`, with the name of its role.
#[derive(Debug)]
pub struct AssignmentRow {
    pub tenant_id: TenantId,
    pub assignment_id: AssignmentId,
    /// The user or service account that has the role.
    pub user_id: SubjectId,
    pub role_id: RoleId,
    pub role_name: String,
    pub scope: Option<Stored>,
    pub expires_at: Option<OffsetDateTime>,
    pub created_at: OffsetDateTime,
}

/// The columns that Postgres computes on insert.
pub struct ComputedColumns {
    /// The scope in canonical form.
    pub scope: Option<Stored>,
    pub created_at: OffsetDateTime,
}

/// Inserts an assignment. The transaction must hold the row lock of the subject. Deletes an expired
/// assignment of the same role with the same scope. Also deletes the subject's other expired
/// assignments, except for the [`EXPIRED_ASSIGNMENTS_KEPT`] that expired last.
///
/// # Errors
/// Returns `ALREADY_EXISTS` when the subject has the role with this scope, and `LIMIT_REACHED`
/// when the subject has the maximum number of assignments or bytes of scopes.
pub async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    new_assignment: &NewAssignment,
) -> Result<ComputedColumns> {
    sqlx::query!(
        r#"
        delete from role_assignments
        where tenant_id = $1 and user_id = $2 and expires_at <= now()
          and (role_id = $3 and scope_key = scope_key_of($4) or assignment_id in (
              select assignment_id from role_assignments
              where tenant_id = $1 and user_id = $2 and expires_at <= now()
              order by expires_at desc offset $5
          ))
        "#,
        tenant.0,
        new_assignment.user.0,
        new_assignment.role.0,
        new_assignment.scope,
        EXPIRED_ASSIGNMENTS_KEPT,
    )
    .execute(tx.conn())
    .await?;
    // The subqueries of the statement do not see the row that it inserts, so both totals add it.
    let row = sqlx::query!(
        r#"
        insert into role_assignments
            (tenant_id, assignment_id, user_id, role_id, scope, expires_at)
        values ($1, $2, $3, $4, $5, $6)
        returning scope as "scope: Stored", created_at, 1 + (
            select count(*) from role_assignments h
            where h.tenant_id = $1 and h.user_id = $3
              and (h.expires_at is null or h.expires_at > now())
        ) as "held!", coalesce(octet_length(scope::text), 0) + (
            select coalesce(sum(octet_length(h.scope::text)), 0) from role_assignments h
            where h.tenant_id = $1 and h.user_id = $3
              and (h.expires_at is null or h.expires_at > now())
        ) as "scope_bytes!"
        "#,
        tenant.0,
        new_assignment.id.0,
        new_assignment.user.0,
        new_assignment.role.0,
        new_assignment.scope,
        new_assignment.expires_at,
    )
    .fetch_one(tx.conn())
    .await?;
    ASSIGNMENTS_OF_SUBJECT.check(row.held)?;
    SCOPE_BYTES_OF_SUBJECT.check(row.scope_bytes)?;
    Ok(ComputedColumns { scope: row.scope, created_at: row.created_at })
}

/// Selects assignments of one role to one subject.
pub enum AssignmentSelector {
    /// All assignments, with any scope.
    All,
    /// The assignment with exactly this scope; `None` selects the assignment without a scope.
    WithScope(Option<Value>),
}

/// Deletes assignments of a role to a user or service account. Returns the deleted rows.
pub async fn delete(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: SubjectId,
    role: RoleId,
    selector: &AssignmentSelector,
) -> Result<Vec<AssignmentRow>> {
    let (all_scopes, scope) = match selector {
        AssignmentSelector::All => (true, None),
        AssignmentSelector::WithScope(scope) => (false, scope.as_ref()),
    };
    let rows = sqlx::query_as!(
        AssignmentRow,
        r#"
        delete from role_assignments a
        using roles r
        where a.tenant_id = $1 and a.user_id = $2 and a.role_id = $3
          and ($4 or a.scope_key = scope_key_of($5))
          and r.tenant_id = a.tenant_id and r.role_id = a.role_id
        returning a.tenant_id as "tenant_id: TenantId",
                  a.assignment_id as "assignment_id: AssignmentId",
                  a.user_id as "user_id: SubjectId", a.role_id as "role_id: RoleId",
                  r.name as "role_name!", a.scope as "scope: Stored", a.expires_at, a.created_at
        "#,
        tenant.0,
        user.0,
        role.0,
        all_scopes,
        scope,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Lists the assignments of a user or service account that have not expired, ordered by id.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn unexpired_assignments(
    tx: &mut TenantTx,
    tenant: TenantId,
    subject: SubjectId,
) -> Result<Vec<AssignmentRow>> {
    let rows = sqlx::query_as!(
        AssignmentRow,
        r#"
        select a.tenant_id as "tenant_id: TenantId",
               a.assignment_id as "assignment_id: AssignmentId",
               a.user_id as "user_id: SubjectId", a.role_id as "role_id: RoleId",
               r.name as role_name, a.scope as "scope: Stored", a.expires_at, a.created_at
        from role_assignments a
        join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
        where a.tenant_id = $1 and a.user_id = $2
          and (a.expires_at is null or a.expires_at > now())
        order by a.assignment_id
        "#,
        tenant.0,
        subject.0,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Filter of the list of assignments. `None` matches every assignment.
pub struct AssignmentFilter {
    pub user: Option<SubjectId>,
    pub role: Option<RoleId>,
    /// Filter on the role's name.
    pub role_name: Filter,
}

/// Fills a page with the assignments that match the filter and have not expired, ordered by id.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    filter: &AssignmentFilter,
    page: &mut Page<RoleAssignment>,
) -> Result<()> {
    while let Some(read) = page.next_read(LARGE_ROWS_PER_READ) {
        let rows = sqlx::query_as!(
            AssignmentRow,
            r#"
            select a.tenant_id as "tenant_id: TenantId",
                   a.assignment_id as "assignment_id: AssignmentId",
                   a.user_id as "user_id: SubjectId", a.role_id as "role_id: RoleId",
                   r.name as role_name, a.scope as "scope: Stored", a.expires_at, a.created_at
            from role_assignments a
            join roles r on r.tenant_id = a.tenant_id and r.role_id = a.role_id
            where a.tenant_id = $1 and a.assignment_id > $2
              and (a.expires_at is null or a.expires_at > now())
              and ($3::uuid is null or a.user_id = $3)
              and ($4::uuid is null or a.role_id = $4)
            order by a.assignment_id
            limit $5
            "#,
            tenant.0,
            read.after_id(),
            filter.user.map(|id| id.0),
            filter.role.map(|id| id.0),
            read.limit,
        )
        .fetch_all(tx.conn())
        .await?;
        let to_item = |row: AssignmentRow| {
            Ok(filter.role_name.matches_text(|_| &row.role_name).then(|| row.into()))
        };
        page.add_rows(read.batch(rows), |row| Position::by_id(row.assignment_id.0), to_item)
            .await?;
    }
    Ok(())
}
