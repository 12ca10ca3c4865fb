//! The trail's rows.

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

/// An event with a place in its tenant's chain, and the hash there.
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
    /// Sealed: see [`EventRow::open_ip`].
    pub ip: Option<Vec<u8>>,
    pub detail: Value,
    pub created_at: OffsetDateTime,
    /// 0 while it has none.
    pub position: i64,
    /// Empty while it has no place.
    pub hash: Vec<u8>,
}

impl EventRow {
    /// The client's address; empty where there is none.
    ///
    /// # Errors
    /// `DATA_UNREADABLE` when it was altered.
    pub fn open_ip(&self, cipher: &Cipher) -> Result<String> {
        let Some(ip) = &self.ip else { return Ok(String::new()) };
        let ip = cipher.open(SealContext::row("audit_events", &self.event_id), ip)?;
        String::from_utf8(ip).map_err(|_| Error::Unreadable)
    }
}

/// Which events somebody asks for; `None` for all.
#[derive(Debug)]
pub struct Wanted {
    /// The kind, as a LIKE pattern.
    pub kind: Option<String>,
    /// Who did it.
    pub actor: Option<Uuid>,
    /// What it happened to.
    pub target: Option<Uuid>,
    /// The session that it was done in, or that it is about.
    pub session: Option<Uuid>,
    /// The request's id.
    pub request_id: Option<String>,
    /// The first moment.
    pub start: Option<OffsetDateTime>,
    /// The first moment that is not meant any more.
    pub end: Option<OffsetDateTime>,
}

/// The next of a tenant's events, newest first.
///
/// # Errors
/// When Postgres is away.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    wanted: &Wanted,
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

/// A tenant's events at the next places after `position`, in the chain's order.
///
/// # Errors
/// When Postgres is away.
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

/// The last place in a tenant's chain; 0 where there is none.
///
/// # Errors
/// When Postgres is away.
pub async fn last_position(tx: &mut TenantTx, tenant: TenantId) -> Result<i64> {
    let last = sqlx::query_scalar!(
        r#"select coalesce(max(position), 0) as "position!" from audit_chain where tenant_id = $1"#,
        tenant.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(last)
}
