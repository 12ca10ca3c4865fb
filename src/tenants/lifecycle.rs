//! `SuspendTenant`, `ReactivateTenant` and `DeleteTenant`.

use super::{
    TenantRef, TenantState, Tenants, audited,
    store::{self, TenantRow},
};
use crate::{
    api::update_mask::check_etag,
    audit::{self, Event, EventKind},
    error::{Error, Result},
    gate::WriteCaller,
    proto::v1::ErrorReason,
};

impl Tenants {
    /// Suspends or reactivates a tenant. Returns the tenant and the consistency token.
    pub(super) async fn set_state(
        &self,
        write_caller: &WriteCaller,
        tenant: TenantRef,
        state: TenantState,
    ) -> Result<(TenantRow, String)> {
        refuse_platform_tenant(&tenant)?;
        let mut tx = self.db.begin(tenant.id).await?;
        let row = store::lock(&mut tx, tenant.id).await?;
        let caller = write_caller.authorize_write(&mut tx, tenant.id).await?;
        if row.state == state {
            return Ok((row, tx.consistency_token().await?));
        }
        let event_of = |kind| Event::new(kind).target(tenant.id.0);
        if state == TenantState::Suspended {
            let (row, ended_sessions) = store::suspend(&mut tx, row).await?;
            let event = event_of(EventKind::TenantSuspended);
            Ok((row, self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await?))
        } else {
            let row = store::reactivate(&mut tx, row).await?;
            let event = event_of(EventKind::TenantReactivated);
            Ok((row, audit::finish(tx, &caller.actor(), event).await?))
        }
    }

    pub(super) async fn delete(
        &self,
        write_caller: &WriteCaller,
        tenant: TenantRef,
        etag: &str,
    ) -> Result<String> {
        refuse_platform_tenant(&tenant)?;
        // The second audit event is recorded in the caller's tenant. The data key of that tenant
        // must be in memory before the transaction begins.
        self.db.cipher(write_caller.own_tenant()).await?;
        let mut tx = self.db.begin(tenant.id).await?;
        let row = store::lock(&mut tx, tenant.id).await?;
        let caller = write_caller.authorize_write(&mut tx, tenant.id).await?;
        check_etag(etag, row.version)?;
        let event =
            || audited::with_name(Event::new(EventKind::TenantDeleted).target(tenant.id.0), &row);
        audit::record(&mut tx, &caller.actor(), event()).await?;
        // The trail of the deleted tenant may be trimmed to nothing, so the trail of the caller's
        // tenant, the platform, records the deletion too.
        tx.switch_tenant(caller.own_tenant()).await?;
        audit::record(&mut tx, &caller.actor(), event()).await?;
        tx.switch_tenant(tenant.id).await?;
        let ended_sessions = store::delete(&mut tx, tenant.id).await?;
        self.session_cache.finish(tx, &caller.actor(), None::<Event>, ended_sessions).await
    }
}

fn refuse_platform_tenant(tenant: &TenantRef) -> Result<()> {
    if tenant.is_platform {
        return Err(Error::refused(
            ErrorReason::PlatformTenant,
            "the platform tenant can't be suspended, reactivated or deleted",
        ));
    }
    Ok(())
}
