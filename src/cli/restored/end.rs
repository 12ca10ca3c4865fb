//! Ends the sessions and the API keys that are valid again in a restored database.

use time::OffsetDateTime;

use super::{Tenants, store};
use crate::{
    audit::{self, Event, EventKind},
    cli::{progress, provision},
    concurrency::step::bounded,
    credentials::api_keys,
    db::Db,
    error::Result,
    ids::{SessionId, TenantId},
    sessions, tenants,
};

/// Maximum number of sessions that one transaction ends.
const BATCH: i64 = 2_000;

/// The result of [`all`].
#[derive(Default)]
pub(super) struct Ended {
    /// Number of tenants.
    pub(super) tenants: u64,
    /// Number of live sessions that ended.
    pub(super) sessions: u64,
    /// Number of valid API keys that ended.
    pub(super) api_keys: u64,
    /// The time of the newest event of all trails, from before this run.
    pub(super) newest_event: Option<OffsetDateTime>,
}

/// Ends all sessions, and all API keys unless `keep_api_keys` is set. Records one event in each
/// tenant. The event of the platform tenant comes last, because it contains the number of tenants.
/// An interrupted run can be repeated.
///
/// # Errors
/// UNAVAILABLE when Postgres is unavailable.
pub(super) async fn all(db: &Db, keep_api_keys: bool) -> anyhow::Result<Ended> {
    let platform =
        tenants::find(db, TenantId::UNKNOWN, provision::PLATFORM).await?.map(|tenant| tenant.id);
    let mut ended = Ended::default();
    let spinner = progress::spinner("ending sessions");
    let mut tenants = Tenants::of(db);
    while let Some(tenant) = tenants.next().await? {
        ended.tenants += 1;
        if Some(tenant) != platform {
            end_in_tenant(db, tenant, keep_api_keys, None, &mut ended).await?;
        }
        spinner
            .set_message(format!("{} sessions of {} tenants ended", ended.sessions, ended.tenants));
    }
    if let Some(platform) = platform {
        end_in_tenant(db, platform, keep_api_keys, Some(ended.tenants), &mut ended).await?;
    }
    spinner.finish_and_clear();
    Ok(ended)
}

/// Ends the sessions and the API keys of one tenant, records the event, and adds the counts to
/// `ended`. Only the event of the platform tenant has a `tenant_count`.
async fn end_in_tenant(
    db: &Db,
    tenant: TenantId,
    keep_api_keys: bool,
    tenant_count: Option<u64>,
    ended: &mut Ended,
) -> Result<()> {
    let (mut after, mut sessions) = (None, 0);
    loop {
        let (ended_count, last_session) = bounded(end_sessions(db, tenant, after)).await?;
        sessions += ended_count;
        after = last_session;
        if after.is_none() {
            break;
        }
    }
    let (api_keys, newest_event) = bounded(async {
        let mut tx = db.begin_without_cipher(tenant).await?;
        let newest_event = store::newest_event(&mut tx, tenant).await?;
        let mut revoked = 0;
        if !keep_api_keys {
            let (count, ended_sessions) = api_keys::store::revoke_all(&mut tx, tenant).await?;
            ended_sessions.expire_in_cache();
            revoked = count;
        }
        let event = Event::new(EventKind::DeploymentRestored)
            .detail("sessions_revoked", sessions)
            .detail("api_keys_revoked", revoked)
            .optional_detail("tenants", tenant_count);
        audit::record(&mut tx, &provision::operator(), event).await?;
        tx.commit().await?;
        Ok((revoked, newest_event))
    })
    .await?;
    ended.sessions += sessions;
    ended.api_keys += api_keys;
    ended.newest_event = ended.newest_event.max(newest_event);
    Ok(())
}

/// Ends the next batch of sessions, in the order of their ids, from the first one after `after`.
/// Returns the number of live sessions that ended, and the last session of the batch; `None` when
/// no session was left.
async fn end_sessions(
    db: &Db,
    tenant: TenantId,
    after: Option<SessionId>,
) -> Result<(u64, Option<SessionId>)> {
    let mut tx = db.begin_without_cipher(tenant).await?;
    let (batch, ended_sessions) =
        sessions::store::revoke_batch(&mut tx, tenant, after, BATCH, "restored").await?;
    tx.commit().await?;
    // Commands do not use the session cache in Redis. Its entries expire within a second.
    ended_sessions.expire_in_cache();
    Ok((batch.live.unsigned_abs(), batch.last))
}
