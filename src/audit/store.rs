//! SQL for the audit trail.

use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    event::{Actor, Event},
    page_size::PageSize,
};
use crate::{
    api::paging::PageRead,
    concurrency::step::bounded,
    db::{Db, TenantTx},
    error::{Error, Result},
    ids::TenantId,
    pg::Tx,
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
    /// The encrypted client address; see [`EventRow::open_ip`].
    pub ip: Option<Vec<u8>>,
    pub detail: Value,
    pub created_at: OffsetDateTime,
    /// 0 while the event is not in the chain.
    pub position: i64,
    /// Empty while the event is not in the chain.
    pub hash: Vec<u8>,
}

impl EventRow {
    /// The client's address; empty when the event has no address.
    ///
    /// # Errors
    /// `DATA_UNREADABLE` when the encrypted address was altered.
    pub fn open_ip(&self, cipher: &Cipher) -> Result<String> {
        let Some(ip) = &self.ip else { return Ok(String::new()) };
        let ip = cipher.open(SealContext::row("audit_events", &self.event_id), ip)?;
        String::from_utf8(ip).map_err(|_| Error::Unreadable)
    }
}

/// Inserts an event. `ip` is the encrypted client address.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    actor: &Actor,
    event: Event,
    event_id: Uuid,
    ip: Option<Vec<u8>>,
) -> Result<()> {
    sqlx::query!(
        r#"
        insert into audit_events
            (tenant_id, event_id, kind, actor_tenant_id, actor_id, target_id, session_id,
             request_id, ip, detail)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        "#,
        tenant.0,
        event_id,
        event.kind.as_str(),
        actor.tenant.map(|id| id.0),
        actor.user.map(|id| id.0),
        event.target,
        actor.session.map(|id| id.0),
        actor.origin.correlation_id.to_string(),
        ip,
        Value::Object(event.detail),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// The conditions on the events of a list. `None` means no condition.
#[derive(Debug)]
pub struct EventFilter {
    /// The kind, as a LIKE pattern.
    pub kind: Option<String>,
    /// The id of the actor.
    pub actor: Option<Uuid>,
    /// The id of the target.
    pub target: Option<Uuid>,
    /// The id of the actor's session.
    pub session: Option<Uuid>,
    pub request_id: Option<String>,
    /// The start of the time range, inclusive.
    pub start: Option<OffsetDateTime>,
    /// The end of the time range, exclusive.
    pub end: Option<OffsetDateTime>,
}

/// Reads the next events of a tenant, newest first.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn list(
    tx: &mut TenantTx,
    tenant: TenantId,
    filter: &EventFilter,
    read: &PageRead,
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
        filter.kind,
        filter.actor,
        filter.target,
        filter.session,
        filter.request_id,
        filter.start,
        filter.end,
        read.after.and_then(|position| position.at),
        read.after_id(),
        read.limit,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Reads at most `limit` events of a tenant's chain after `position`, in the order of the chain.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn read_after(
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

/// Like [`read_after`], but in its own transaction. For commands that read a whole chain in
/// batches. Reads fewer events if the database is slow.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn read_batch_after(
    db: &Db,
    tenant: TenantId,
    position: i64,
    page_size: &mut PageSize,
) -> Result<Vec<EventRow>> {
    let read = |limit| {
        bounded(async move {
            let mut tx = db.begin_without_cipher(tenant).await?;
            read_after(&mut tx, tenant, position, limit).await
        })
    };
    page_size.read(read).await
}

/// The hash of the event at a position in a tenant's chain; `None` when the chain does not contain
/// this position.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn hash_at(
    tx: &mut TenantTx,
    tenant: TenantId,
    position: i64,
) -> Result<Option<Vec<u8>>> {
    let hash = sqlx::query_scalar!(
        "select hash from audit_chain where tenant_id = $1 and position = $2",
        tenant.0,
        position,
    );
    Ok(hash.fetch_optional(tx.conn()).await?)
}

/// The last position in a tenant's chain, or the position of its checkpoint when all sealed events
/// were deleted; 0 when no event was sealed yet.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub async fn last_position(tx: &mut TenantTx, tenant: TenantId) -> Result<i64> {
    let last = sqlx::query_scalar!(
        r#"
        select coalesce(
            (select max(position) from audit_chain where tenant_id = $1),
            (select position from audit_checkpoints where tenant_id = $1),
            0
        ) as "position!"
        "#,
        tenant.0,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(last)
}

/// The checkpoint of a trail, as it is stored: the position and hash of the last deleted event.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CheckpointRow {
    pub tenant_id: Uuid,
    pub position: i64,
    pub hash: Vec<u8>,
    /// The id of the key that signed the statement.
    pub signed_by: String,
    /// The signed checkpoint, a JWT.
    pub statement: String,
}

/// A tenant's checkpoint; `None` when no event of the trail was deleted.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn checkpoint(
    tx: &mut TenantTx,
    tenant: TenantId,
) -> Result<Option<CheckpointRow>> {
    let checkpoint = sqlx::query_as!(
        CheckpointRow,
        r#"
        select tenant_id, position, hash, signed_by, statement from audit_checkpoints
        where tenant_id = $1
        "#,
        tenant.0,
    );
    Ok(checkpoint.fetch_optional(tx.conn()).await?)
}

/// Like [`checkpoint`], but in its own transaction.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn read_checkpoint(db: &Db, tenant: TenantId) -> Result<Option<CheckpointRow>> {
    bounded(async { checkpoint(&mut db.begin_without_cipher(tenant).await?, tenant).await }).await
}

/// The next tenants that have or had an audit trail, at most `limit`, in order of their ids: the
/// first is the one after `after`. Includes deleted tenants. The transaction must work in the
/// platform tenant.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn audited_tenants(
    tx: &mut TenantTx,
    after: TenantId,
    limit: i64,
) -> Result<Vec<TenantId>> {
    let tenants =
        sqlx::query_scalar!(r#"select t as "t!" from audited_tenants($1, $2) t"#, after.0, limit)
            .fetch_all(tx.conn())
            .await?;
    Ok(tenants.into_iter().map(TenantId).collect())
}

/// The numbers of events that are not in the chain, in one page of a tenant's events.
#[derive(Debug)]
pub(super) struct UnsealedCounts {
    /// The id of the last event of the page; `None` when the page is empty.
    pub(super) last: Option<Uuid>,
    /// Number of events in the queue of the sealer.
    pub(super) waiting: i64,
    /// Number of events that are neither in the chain nor in the queue.
    pub(super) lost: i64,
}

/// Reads the next `limit` events after the id `after`, in the order of their ids, and counts those
/// that are not in the chain.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn count_unsealed(
    tx: &mut TenantTx,
    tenant: TenantId,
    after: Uuid,
    limit: i64,
) -> Result<UnsealedCounts> {
    let counts = sqlx::query_as!(
        UnsealedCounts,
        r#"
        select (array_agg(e.event_id order by e.event_id desc))[1] as last,
               count(*) filter (where c.event_id is null and q.event_id is not null) as "waiting!",
               count(*) filter (where c.event_id is null and q.event_id is null) as "lost!"
        from (
            select event_id from audit_events
            where tenant_id = $1 and event_id > $2
            order by event_id limit $3
        ) e
        left join audit_chain c on c.tenant_id = $1 and c.event_id = e.event_id
        left join audit_queue q on q.tenant_id = $1 and q.event_id = e.event_id
        "#,
        tenant.0,
        after,
        limit,
    )
    .fetch_one(tx.conn())
    .await?;
    Ok(counts)
}

/// Whether there are events that are not in a chain yet.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn has_unsealed(db: &Db) -> Result<bool> {
    let query = sqlx::query_scalar!(r#"select unsealed as "unsealed!" from audit_backlog()"#);
    Ok(query.fetch_one(db.executor()).await?)
}

/// The ages of the oldest event that is not sealed, and of the oldest event that is not sent, in
/// seconds; 0 when there is none.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn backlog_ages(db: &Db) -> Result<(f64, f64)> {
    let query = sqlx::query!(
        r#"select unsealed as "unsealed!", unsent as "unsent!" from audit_backlog_ages()"#
    );
    let ages = query.fetch_one(db.executor()).await?;
    Ok((ages.unsealed, ages.unsent))
}

/// Reads at most `limit` unsealed events of all tenants. The `position` and `hash` of a row are the
/// values of the last sealed event of the tenant. Returns no rows while another replica seals
/// events.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn read_unsealed(tx: &mut Tx, limit: usize) -> Result<Vec<EventRow>> {
    let rows = sqlx::query_as!(
        EventRow,
        r#"
        select (event).tenant_id as "tenant_id!", (event).event_id as "event_id!",
               (event).kind as "kind!", (event).actor_tenant_id, (event).actor_id,
               (event).target_id, (event).session_id, (event).request_id as "request_id!",
               (event).ip, (event).detail as "detail!", (event).created_at as "created_at!",
               last_position as "position!", last_hash as "hash!"
        from read_unsealed($1)
        "#,
        i64::try_from(limit).unwrap_or(i64::MAX),
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(rows)
}

/// Writes the positions and hashes of events. The arrays have one element per event.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn seal(
    tx: &mut Tx,
    tenants: &[Uuid],
    events: &[Uuid],
    positions: &[i64],
    hashes: &[Vec<u8>],
) -> Result<()> {
    sqlx::query!("select seal_events($1, $2, $3, $4)", tenants, events, positions, hashes)
        .execute(tx.conn())
        .await?;
    Ok(())
}

/// An event to send to Redis. The client's address is not sent.
pub(super) struct OutboxEvent {
    pub(super) tenant_id: Uuid,
    pub(super) event_id: Uuid,
    pub(super) kind: String,
    pub(super) actor_tenant_id: Option<Uuid>,
    pub(super) actor_id: Option<Uuid>,
    pub(super) target_id: Option<Uuid>,
    pub(super) session_id: Option<Uuid>,
    pub(super) request_id: String,
    pub(super) detail: Value,
    pub(super) created_at: OffsetDateTime,
    pub(super) position: i64,
    pub(super) hash: Vec<u8>,
}

/// Whether the outbox has events.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn has_unsent(db: &Db) -> Result<bool> {
    let query = sqlx::query_scalar!(r#"select unsent as "unsent!" from audit_backlog()"#);
    Ok(query.fetch_one(db.executor()).await?)
}

/// Reads at most `limit` events from the outbox, in the order of tenants and positions. Leaves out
/// the `blocked` tenants, and the tenants whose id is lower than `first_tenant`.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn read_outbox(
    tx: &mut Tx,
    limit: u16,
    blocked: &[Uuid],
    first_tenant: Uuid,
) -> Result<Vec<OutboxEvent>> {
    let events = sqlx::query_as!(
        OutboxEvent,
        r#"
        select (event).tenant_id as "tenant_id!", (event).event_id as "event_id!",
               (event).kind as "kind!", (event).actor_tenant_id, (event).actor_id,
               (event).target_id, (event).session_id, (event).request_id as "request_id!",
               (event).detail as "detail!", (event).created_at as "created_at!",
               position as "position!", hash as "hash!"
        from read_outbox($1, $2, $3)
        "#,
        i64::from(limit),
        blocked,
        first_tenant,
    )
    .fetch_all(tx.conn())
    .await?;
    Ok(events)
}

/// Removes sent events from the outbox.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn mark_published(tx: &mut Tx, tenants: &[Uuid], positions: &[i64]) -> Result<()> {
    sqlx::query!("select mark_published($1, $2)", tenants, positions).execute(tx.conn()).await?;
    Ok(())
}
