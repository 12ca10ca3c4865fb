//! Ends what a restored database would make valid again.

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

/// What ended.
#[derive(Default)]
pub(super) struct Ended {
    pub(super) tenants: u64,
    /// Number of live sessions that ended.
    pub(super) sessions: u64,
    /// Number of valid API keys that ended.
    pub(super) api_keys: u64,
    /// The time of the newest event of all trails, from before this run.
    pub(super) newest_event: Option<OffsetDateTime>,
}

/// Ends all sessions, and all API keys unless they are kept. Records one event in each tenant; the
/// event of the platform is the last one. An interrupted run can be repeated.
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
            in_tenant(db, tenant, keep_api_keys, None, &mut ended).await?;
        }
        spinner
            .set_message(format!("{} sessions of {} tenants ended", ended.sessions, ended.tenants));
    }
    if let Some(platform) = platform {
        in_tenant(db, platform, keep_api_keys, Some(ended.tenants), &mut ended).await?;
    }
    spinner.finish_and_clear();
    Ok(ended)
}

async fn in_tenant(
    db: &Db,
    tenant: TenantId,
    keep_api_keys: bool,
    tenant_count: Option<u64>,
    ended: &mut Ended,
) -> Result<()> {
    let (mut after, mut sessions) = (None, 0);
    loop {
        let (live, last) = bounded(end_sessions(db, tenant, after)).await?;
        sessions += live;
        after = last;
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
            .maybe("tenants", tenant_count);
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

/// Ends a batch of sessions. Returns the number of live sessions that ended, and the last session.
async fn end_sessions(
    db: &Db,
    tenant: TenantId,
    after: Option<SessionId>,
) -> Result<(u64, Option<SessionId>)> {
    let mut tx = db.begin_without_cipher(tenant).await?;
    let (batch, ended_sessions) =
        sessions::store::revoke_batch(&mut tx, tenant, after, BATCH, "restored").await?;
    tx.commit().await?;
    ended_sessions.expire_in_cache();
    Ok((batch.live.unsigned_abs(), batch.last))
}
