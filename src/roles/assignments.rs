//! Role assignments in Postgres.
//!
//! - Rule: `keep_scope` (`migrations/0011_scopes.sql`) stores each scope in its canonical form
//!   (trigger).
//! - Rule: `canonical_scope` (`migrations/0011_scopes.sql`) decides what the canonical form is,
//!   with `canonical_number`.
//! - Rule: `scope_key_of` (`migrations/0011_scopes.sql`) decides which scopes are the same.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    bounds::{ASSIGNMENTS_OF_SUBJECT, ENDED_ASSIGNMENTS_KEPT, SCOPE_BYTES_OF_SUBJECT},
    db::TenantTx,
    error::Result,
    filter::Filter,
    ids::{AssignmentId, RoleId, TenantId, UserId},
    json::Stored,
    paging::{LARGE_ROWS, Page, Position},
    proto::v1::RoleAssignment,
};

/// An assignment to write.
pub struct NewAssignment {
    /// The assignment.
    pub id: AssignmentId,
    /// Who gets the role.
    pub user: UserId,
    /// The role.
    pub role: RoleId,
    /// Where it applies; everywhere when `None`.
    pub scope: Option<Value>,
    /// When it ends; never when `None`.
    pub expires_at: Option<OffsetDateTime>,
}

impl NewAssignment {
    /// The assignment once it is written.
    pub(super) fn row(
        self,
        tenant: TenantId,
        role_name: String,
        inserted: Inserted,
    ) -> AssignmentRow {
        AssignmentRow {
            tenant_id: tenant.0,
            assignment_id: self.id.0,
            user_id: self.user.0,
            role_id: self.role.0,
            role_name,
            scope: inserted.scope,
            expires_at: self.expires_at,
            created_at: inserted.created_at,
        }
    }
}

/// An assignment as it is kept.
#[derive(Debug)]
pub struct AssignmentRow {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The assignment.
    pub assignment_id: Uuid,
    /// Who has the role.
    pub user_id: Uuid,
    /// The role.
    pub role_id: Uuid,
    /// The role's name.
    pub role_name: String,
    /// Where it applies.
    pub scope: Option<Stored>,
    /// When it ends.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// What Postgres makes of an assignment that is written.
pub struct Inserted {
    /// Its scope, in the one form.
    pub scope: Option<Stored>,
    /// When it was made.
    pub created_at: OffsetDateTime,
}

/// Writes an assignment of a locked subject, in the place of one with the same scope that has
/// ended. Of others that have ended the latest [`ENDED_ASSIGNMENTS_KEPT`] stay.
///
/// # Errors
/// `ALREADY_EXISTS` when the user has the role with this scope, `LIMIT_REACHED` when it has
/// as many as it may.
pub async fn insert(tx: &mut TenantTx, tenant: TenantId, new: &NewAssignment) -> Result<Inserted> {
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
        new.user.0,
        new.role.0,
        new.scope,
        ENDED_ASSIGNMENTS_KEPT,
    )
    .execute(tx.conn())
    .await?;
    // What the statement itself writes is not seen by the query in it.
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
        new.id.0,
        new.user.0,
        new.role.0,
        new.scope,
        new.expires_at,
    )
    .fetch_one(tx.conn())
    .await?;
    ASSIGNMENTS_OF_SUBJECT.check(row.held)?;
    SCOPE_BYTES_OF_SUBJECT.check(row.scope_bytes)?;
    Ok(Inserted { scope: row.scope, created_at: row.created_at })
}

/// Which assignments of a role to a user.
pub enum Which {
    /// Every one, whatever its scope.
    All,
    /// The one with just this scope; without one, the one that applies everywhere.
    Just(Option<Value>),
}

/// Removes a role from a user; what it removed.
pub async fn delete(
    tx: &mut TenantTx,
    tenant: TenantId,
    user: UserId,
    role: RoleId,
    which: &Which,
) -> Result<Vec<AssignmentRow>> {
    let (all, scope) = match which {
        Which::All => (true, None),
        Which::Just(scope) => (false, scope.as_ref()),
    };
    let rows = sqlx::query_as!(
        AssignmentRow,
        r#"
        delete from role_assignments a
        using roles r
        where a.tenant_id = $1 and a.user_id = $2 and a.role_id = $3
          and ($4 or a.scope_key = scope_key_of($5))
          and r.tenant_id = a.tenant_id and r.role_id = a.role_id
        returning a.tenant_id, a.assignment_id, a.user_id, a.role_id, r.name as "role_name!",
                  a.scope as "scope: Stored", a.expires_at, a.created_at
        "#,
        tenant.0,
        user.0,
        role.0,
        all,
        scope,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// What a user or service account holds now, by id.
///
/// # Errors
/// When Postgres is away.
pub async fn held(
    tx: &mut TenantTx,
    tenant: TenantId,
    subject: UserId,
) -> Result<Vec<AssignmentRow>> {
    let rows = sqlx::query_as!(
        AssignmentRow,
        r#"
        select a.tenant_id, a.assignment_id, a.user_id, a.role_id, r.name as role_name,
               a.scope as "scope: Stored", a.expires_at, a.created_at
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

/// Which assignments to list; `None` asks for any.
pub struct AssignmentFilter {
    /// Of this user.
    pub user: Option<UserId>,
    /// Of this role.
    pub role: Option<RoleId>,
    /// On the role's name.
    pub role_name: Filter,
}

/// Fills a page with assignments that have not ended, by id.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    filter: &AssignmentFilter,
    page: &mut Page<RoleAssignment>,
) -> Result<()> {
    while let Some(read) = page.next_read(LARGE_ROWS) {
        let rows = sqlx::query_as!(
            AssignmentRow,
            r#"
            select a.tenant_id, a.assignment_id, a.user_id, a.role_id, r.name as role_name,
                   a.scope as "scope: Stored", a.expires_at, a.created_at
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
        let show = |row: AssignmentRow| {
            Ok(filter.role_name.matches(|_| &row.role_name).then(|| row.into()))
        };
        page.take(read.found(rows), |row| Position::of(row.assignment_id), show).await?;
    }
    Ok(())
}
