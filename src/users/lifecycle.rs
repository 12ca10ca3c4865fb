//! `DisableUser`, `EnableUser` and `DeleteUser`: what may take an administrator from a
//! tenant, and ends sessions.

use super::{
    Users,
    store::{self, UserRow},
};
use crate::{
    api::update_mask::check_etag,
    audit::{self, Event, EventKind},
    db::TenantTx,
    error::Result,
    gate::{Caller, WriteCaller},
    ids::UserId,
    proto::v1::UserState,
    roles::{self, guard::AdminGuard},
    sessions,
};

impl Users {
    /// The user as it is now, and the consistency token of that.
    pub(super) async fn set_state(
        &self,
        acting: &WriteCaller,
        user: UserId,
        state: UserState,
    ) -> Result<(UserRow, String)> {
        let tenant = acting.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::watch(&mut tx, tenant).await?;
        let mut row = store::lock(&mut tx, tenant, user).await?;
        let caller = match state {
            UserState::Disabled => acting.authorize_take(&mut tx, user).await?,
            _ => acting.authorize_use(&mut tx, user).await?,
        };
        if row.state == store::state_text(state) {
            return Ok((row, tx.consistency_token().await?));
        }
        store::state_text(state).clone_into(&mut row.state);
        let row = store::update(&mut tx, &row).await?;
        let event = match state {
            UserState::Disabled => {
                let ended =
                    sessions::store::revoke_all(&mut tx, tenant, user, None, "user_disabled");
                Event::new(EventKind::UserDisabled).detail("sessions_revoked", ended.await?)
            }
            _ => Event::new(EventKind::UserEnabled),
        };
        let event = event.target(user.0);
        Ok((row, self.finish(tx, caller, admins, event).await?))
    }

    pub(super) async fn delete(
        &self,
        acting: &WriteCaller,
        user: UserId,
        etag: &str,
    ) -> Result<String> {
        let tenant = acting.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::watch(&mut tx, tenant).await?;
        let version = store::lock_version(&mut tx, tenant, user).await?;
        check_etag(etag, version)?;
        let caller = acting.authorize_take(&mut tx, user).await?;
        let held = roles::held(&mut tx, tenant, user).await?;
        let ended = sessions::store::count_live(&mut tx, tenant, user).await?;
        store::delete(&mut tx, tenant, user).await?;
        let event = Event::new(EventKind::UserDeleted).target(user.0);
        let event = event.detail("sessions_revoked", ended);
        let event = roles::audited::gone(event, &held);
        self.finish(tx, caller, admins, event).await
    }

    /// Ends a change that may have taken an administrator or ended sessions; its
    /// consistency token.
    async fn finish(
        &self,
        mut tx: TenantTx,
        caller: &Caller,
        admins: AdminGuard,
        event: Event,
    ) -> Result<String> {
        admins.check(&mut tx).await?;
        audit::record(&mut tx, caller.tenant(), &caller.actor(), event).await?;
        let token = tx.consistency_token().await?;
        tx.commit().await?;
        self.cache.forget(caller.tenant()).await;
        Ok(token)
    }
}
