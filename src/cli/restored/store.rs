//! SQL of `tenantry restored`, which connects as the schema's owner.
//!
//! - Rule: `begin_epoch` (`migrations/0038_epochs.sql`) decides which consistency tokens stay valid.
//! - Rule: `list_all_tenants` (`migrations/0039_list_all_tenants.sql`) lists the tenants whose
//!   sessions end.

use time::OffsetDateTime;
use uuid::Uuid;

use crate::{
    concurrency::step::bounded,
    db::{Db, TenantTx},
    error::Result,
    ids::TenantId,
};

/// Begins an epoch that keeps no earlier token, and empties the change feed, whose transaction ids
/// are of the past. Deletes everything that waits or that a repeated request would return: mails,
/// links of mails, registrations that wait for a mail, and stored responses.
pub(super) async fn begin_epoch(db: &Db) -> Result<()> {
    let mut tx = bounded(db.postgres().begin(TenantId::UNKNOWN)).await?;
    let truncate = sqlx::query!(
        "truncate changes, change_marks, mail_outbox, mail_links, registrations, idempotency_records"
    );
    bounded(async { Ok(truncate.execute(tx.conn()).await?) }).await?;
    let begin = sqlx::query!("select begin_epoch('0')");
    bounded(async { Ok(begin.execute(tx.conn()).await?) }).await?;
    bounded(tx.commit()).await
}

/// At most `limit` tenants in the order of their ids, from the first after `after`.
pub(super) async fn tenants(db: &Db, after: Option<TenantId>, limit: i64) -> Result<Vec<TenantId>> {
    let tenants = sqlx::query_scalar!(
        r#"select t as "t!" from list_all_tenants($1, $2) t"#,
        after.map(|tenant| tenant.0),
        limit,
    );
    let tenants = bounded(async { Ok(tenants.fetch_all(db.executor()).await?) }).await?;
    Ok(tenants.into_iter().map(TenantId).collect())
}

/// Number of connections of the service to this database.
pub(super) async fn connections_of_service(db: &Db) -> Result<i64> {
    let count = sqlx::query_scalar!(
        r#"
        select count(*) as "count!" from pg_stat_activity
        where datname = current_database() and usename = 'tenantry_app'
        "#
    );
    bounded(async { Ok(count.fetch_one(db.executor()).await?) }).await
}

/// The id of a pepper, as in stored hashes, and the number of a tenant's hashes that need it.
pub(super) struct PepperUse {
    pub(super) id: String,
    pub(super) count: i64,
}

/// The peppers that a tenant's password hashes need.
pub(super) async fn peppers(tx: &mut TenantTx, tenant: TenantId) -> Result<Vec<PepperUse>> {
    let peppers = sqlx::query_as!(
        PepperUse,
        r#"
        select substring(password_hash from 'keyid=([A-Za-z0-9+/]+)') as "id!", count(*) as "count!"
        from credentials
        where tenant_id = $1 and password_hash like '$argon2%keyid=%'
        group by 1
        "#,
        tenant.0,
    );
    Ok(peppers.fetch_all(tx.conn()).await?)
}

/// The time of the newest event of a tenant.
pub(super) async fn newest_event(
    tx: &mut TenantTx,
    tenant: TenantId,
) -> Result<Option<OffsetDateTime>> {
    let newest = sqlx::query_scalar!(
        "select max(created_at) from audit_events where tenant_id = $1",
        tenant.0
    );
    Ok(newest.fetch_one(tx.conn()).await?)
}

/// Those of the events that the tenant's trail has.
pub(super) async fn known_events(
    tx: &mut TenantTx,
    tenant: TenantId,
    events: &[Uuid],
) -> Result<Vec<Uuid>> {
    let known = sqlx::query_scalar!(
        "select event_id from audit_events where tenant_id = $1 and event_id = any($2)",
        tenant.0,
        events,
    );
    Ok(known.fetch_all(tx.conn()).await?)
}
