//! `DisableUser`, `EnableUser` and `DeleteUser`. A tenant must keep an administrator. The
//! sessions of a disabled user end in the same transaction (`store.rs`).

use super::{
    UserState, Users,
    store::{self, UserRow},
};
use crate::{
    api::update_mask::check_etag,
    audit::{self, Event, EventKind},
    error::Result,
    gate::WriteCaller,
    ids::SubjectId,
    roles::{self, last_admin::AdminGuard},
    sessions,
};

impl Users {
    /// Disables or enables a user. Returns the user and the consistency token.
    pub(super) async fn set_state(
        &self,
        write_caller: &WriteCaller,
        user: SubjectId,
        state: UserState,
    ) -> Result<(UserRow, String)> {
        let tenant = write_caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::lock_and_count(&mut tx, tenant).await?;
        let row = store::lock(&mut tx, tenant, user).await?;
        let caller = match state {
            UserState::Disabled => write_caller.authorize_take(&mut tx, user).await?,
            UserState::Active => write_caller.authorize_use(&mut tx, user).await?,
        };
        if row.state == state {
            return Ok((row, tx.consistency_token().await?));
        }
        if state == UserState::Disabled {
            let (row, count, ended_sessions) = store::disable(&mut tx, row).await?;
            admins.check_after_change(&mut tx).await?;
            let event = Event::new(EventKind::UserDisabled).target(user.0);
            let event = event.detail("sessions_revoked", count);
            Ok((row, self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await?))
        } else {
            let row = store::enable(&mut tx, row).await?;
            let event = Event::new(EventKind::UserEnabled).target(user.0);
            Ok((row, audit::finish(tx, &caller.actor(), event).await?))
        }
    }

    pub(super) async fn delete(
        &self,
        write_caller: &WriteCaller,
        user: SubjectId,
        etag: &str,
    ) -> Result<String> {
        let tenant = write_caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let admins = AdminGuard::lock_and_count(&mut tx, tenant).await?;
        let version = store::lock_version(&mut tx, tenant, user).await?;
        check_etag(etag, version)?;
        let caller = write_caller.authorize_take(&mut tx, user).await?;
        let assignments = roles::unexpired_assignments(&mut tx, tenant, user).await?;
        let count = sessions::store::count_live(&mut tx, tenant, user).await?;
        let ended_sessions = store::delete(&mut tx, tenant, user).await?;
        admins.check_after_change(&mut tx).await?;
        let event = Event::new(EventKind::UserDeleted).target(user.0);
        let event = event.detail("sessions_revoked", count);
        let event = roles::audited::with_deleted_assignments(event, &assignments);
        self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await
    }
}
