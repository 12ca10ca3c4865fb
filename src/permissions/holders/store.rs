//! SQL that finds the holders of permissions and roles.

use futures_util::TryStreamExt;
use serde::Deserialize;
use serde_json::value::RawValue;
use sqlx::types::Json;
use uuid::Uuid;

use crate::{
    api::paging::RowBatch, concurrency::pace::Pace, db::TenantTx, error::Result, ids::TenantId,
};

/// Maximum size of the scopes that are read for a page, in bytes. The scopes of the last subject
/// may exceed this size.
const MAX_SCOPE_BYTES: usize = 4 * 1024 * 1024;

/// A subject with at least one assignment of a role that has the permission.
pub struct HolderRow {
    /// The id of the subject.
    pub user_id: Uuid,
    /// The kind of the subject: `user` or `service_account`.
    pub kind: String,
    /// The subject's assignments in force that grant the permission, in any scope; empty for a
    /// disabled user. Assignments without a scope come first. Among the others, an assignment that
    /// expires later comes earlier.
    pub held: Json<Vec<HeldRow>>,
    /// The number of assignments that were examined to find the holders of this page.
    pub looked_at: i64,
}

/// An assignment of a role that has the permission.
#[derive(Debug, Deserialize)]
pub struct HeldRow {
    /// The id of the assignment.
    pub assignment_id: Uuid,
    /// The name of the role.
    pub role_name: String,
    /// The assignment's scope; `None` applies everywhere.
    pub scope: Option<Box<RawValue>>,
    /// The expiry of the assignment, in seconds since 1970; `None` means never.
    pub expires_at: Option<i64>,
}

/// The next subjects after `after`, in the order of their ids, with an assignment of a role that
/// has one of `covering_permissions`.
///
/// Examines only the next `max_examined` assignments, so the cost does not grow with the tenant.
/// Reads fewer subjects when their scopes are large. If fewer than `max_examined` assignments were
/// found, no holders follow. A suspended tenant has no holders.
pub async fn next_batch(
    tx: &mut TenantTx,
    tenant: TenantId,
    covering_permissions: &[String],
    after: Uuid,
    max_examined: i64,
) -> Result<RowBatch<HolderRow>> {
    let mut rows = sqlx::query_as!(
        HolderRow,
        r#"
        with permitting as materialized (
            select r.role_id, r.name from roles r
            where r.tenant_id = $1 and r.permissions && $2
              and exists (select from tenants where tenant_id = $1 and state = 'active')
        ), given as materialized (
            select a.user_id
            from permitting r
            cross join lateral (
                select user_id from role_assignments
                where tenant_id = $1 and role_id = r.role_id and user_id > $3
                order by user_id
                limit $4
            ) a
            order by a.user_id
            limit $4
        )
        select s.subject_id as user_id, s.kind, (select count(*) from given) as "looked_at!",
               held.rows as "held!: Json<Vec<HeldRow>>"
        from (select distinct user_id from given) g
        join subjects s on s.tenant_id = $1 and s.subject_id = g.user_id
        left join users u on u.tenant_id = $1 and u.user_id = s.subject_id
        cross join lateral (
            select coalesce(jsonb_agg(jsonb_build_object(
                'assignment_id', a.assignment_id, 'role_name', r.name, 'scope', a.scope,
                'expires_at', extract(epoch from a.expires_at)::bigint
            ) order by a.scope is not null, a.expires_at desc, r.name, a.assignment_id), '[]')
            from role_assignments a
            join permitting r on r.role_id = a.role_id
            where a.tenant_id = $1 and a.user_id = s.subject_id
              and (s.kind = 'service_account' or u.state = 'active')
              and (a.expires_at is null or a.expires_at > now())
        ) held (rows)
        order by s.subject_id
        "#,
        tenant.0,
        covering_permissions,
        after,
        max_examined,
    )
    .fetch(tx.conn());
    let (mut holders, mut bytes, mut pace) = (Vec::<HolderRow>::new(), 0, Pace::new());
    while bytes < MAX_SCOPE_BYTES {
        let Some(row) = rows.try_next().await? else {
            let is_last = holders.last().is_none_or(|row| row.looked_at < max_examined);
            return Ok(RowBatch { rows: holders, is_last });
        };
        bytes += row.scope_bytes();
        holders.push(row);
        pace.pause().await;
    }
    Ok(RowBatch { rows: holders, is_last: false })
}

impl HolderRow {
    fn scope_bytes(&self) -> usize {
        let scopes = self.held.iter().filter_map(|held| held.scope.as_ref());
        scopes.map(|scope| scope.get().len()).sum()
    }
}

/// The subjects that have one of these roles now, each once, at most `limit`.
///
/// # Errors
/// Returns UNAVAILABLE when Postgres is unavailable.
pub async fn of_roles(
    tx: &mut TenantTx,
    tenant: TenantId,
    roles: &[Uuid],
    limit: i64,
) -> Result<Vec<Uuid>> {
    let users = sqlx::query_scalar!(
        r#"
        select distinct user_id from role_assignments
        where tenant_id = $1 and role_id = any($2)
          and (expires_at is null or expires_at > now())
        limit $3
        "#,
        tenant.0,
        roles,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(users)
}
