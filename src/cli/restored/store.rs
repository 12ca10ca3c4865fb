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

/// Begins an epoch of the database, in which no earlier consistency token is valid. Empties the
/// change feed, because its transaction ids belong to the earlier epoch. Deletes the mails and
/// registrations that wait, the links of mails, and the stored responses to repeated requests.
pub(super) async fn begin_epoch(db: &Db) -> Result<()> {
    let mut tx = bounded(db.postgres().begin(TenantId::UNKNOWN)).await?;
    let truncate = sqlx::query!(
        "truncate changes, change_marks, mail_outbox, mail_links, registrations, idempotency_records"
    );
    bounded(async { Ok(truncate.execute(tx.conn()).await?) }).await?;
    // '0': no token of an earlier epoch stays valid.
    let begin = sqlx::query!("select begin_epoch('0')");
    bounded(async { Ok(begin.execute(tx.conn()).await?) }).await?;
    bounded(tx.commit()).await
}

/// Returns at most `limit` tenants with an id after `after`, in the order of their ids.
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

/// How many password hashes of a tenant need one pepper.
pub(super) struct PepperUse {
    /// The id of the pepper, as in stored hashes.
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

/// Returns those of `events` that are in the trail of the tenant.
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
