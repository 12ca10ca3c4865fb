//! SQL for the audit trail.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    api::paging::Read,
    db::TenantTx,
    error::{Error, Result},
    ids::TenantId,
    privacy::{Cipher, SealContext},
};

/// An event with its position in the tenant's chain and its hash.
#[derive(Debug)]
pub struct EventRow {
    pub tenant_id: Uuid,
    pub event_id: Uuid,
    pub kind: String,
    pub actor_tenant_id: Option<Uuid>,
    pub actor_id: Option<Uuid>,
    pub target_id: Option<Uuid>,
    pub session_id: Option<Uuid>,
    pub request_id: String,
    /// The sealed client address: see [`EventRow::open_ip`].
    pub ip: Option<Vec<u8>>,
    pub detail: Value,
    pub created_at: OffsetDateTime,
    /// 0 while the event is not sealed.
    pub position: i64,
    /// Empty while the event is not sealed.
    pub hash: Vec<u8>,
}

impl EventRow {
    /// The client's address; empty when there is none.
    ///
    /// # Errors
    /// `DATA_UNREADABLE` when the sealed address was altered.
    pub fn open_ip(&self, cipher: &Cipher) -> Result<String> {
        let Some(ip) = &self.ip else { return Ok(String::new()) };
        let ip = cipher.open(SealContext::row("audit_events", &self.event_id), ip)?;
        String::from_utf8(ip).map_err(|_| Error::Unreadable)
    }
}

/// Filters of a list of events. `None` means no filter.
#[derive(Debug)]
pub struct EventFilter {
    /// The kind, as a LIKE pattern.
    pub kind: Option<String>,
    /// The id of the actor.
    pub actor: Option<Uuid>,
    /// The id of the target.
    pub target: Option<Uuid>,
    /// The session in which the actor acted, or which the event is about.
    pub session: Option<Uuid>,
    pub request_id: Option<String>,
    /// The earliest time, inclusive.
    pub start: Option<OffsetDateTime>,
    /// The latest time, exclusive.
    pub end: Option<OffsetDateTime>,
}

/// Reads the next events of a tenant, newest first.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    wanted: &EventFilter,
    read: &Read,
) -> Result<Vec<EventRow>> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select e.tenant_id, e.event_id, e.kind, e.actor_tenant_id, e.actor_id, e.target_id,
               e.session_id, e.request_id, e.ip, e.detail, e.created_at,
               coalesce(c.position, 0) as "position!", coalesce(c.hash, '') as "hash!"
        from audit_events e
        left join audit_chain c on c.tenant_id = e.tenant_id and c.event_id = e.event_id
        where e.tenant_id = $1
          and ($2::text is null or e.kind like $2)
          and ($3::uuid is null or e.actor_id = $3)
          and ($4::uuid is null or e.target_id = $4)
          and ($5::uuid is null or e.session_id = $5)
          and ($6::text is null or e.request_id = $6)
          and ($7::timestamptz is null or e.created_at >= $7)
          and ($8::timestamptz is null or e.created_at < $8)
          and ($9::timestamptz is null or (e.created_at, e.event_id) < ($9, $10))
        order by e.created_at desc, e.event_id desc
        limit $11
        "#,
        tenant.0,
        wanted.kind,
        wanted.actor,
        wanted.target,
        wanted.session,
        wanted.request_id,
        wanted.start,
        wanted.end,
        read.after.and_then(|position| position.at),
        read.after_id(),
        read.limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Reads the sealed events of a tenant after `position`, in the order of the chain.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn after(
    tx: &mut TenantTx,
    tenant: TenantId,
    position: i64,
    limit: i64,
) -> Result<Vec<EventRow>> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select e.tenant_id, e.event_id, e.kind, e.actor_tenant_id, e.actor_id, e.target_id,
               e.session_id, e.request_id, e.ip, e.detail, e.created_at, c.position, c.hash
        from (
            select tenant_id, position, event_id, hash from audit_chain
            where tenant_id = $1 and position > $2
            order by position limit $3
        ) c
        join audit_events e on e.tenant_id = c.tenant_id and e.event_id = c.event_id
        order by c.position
        "#,
        tenant.0,
        position,
        limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// The last position in a tenant's chain; 0 when the chain is empty.
///
/// # Errors
/// When Postgres is unavailable.
pub async fn last_position(tx: &mut TenantTx, tenant: TenantId) -> Result<i64> {
    let last = sqlx::query_scalar!(
        r#"select coalesce(max(position), 0) as "position!" from audit_chain where tenant_id = $1"#,
        tenant.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(last)
}
