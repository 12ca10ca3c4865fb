//! `RevokeSession` and `RevokeAllSessions`.

use super::{Sessions, store};
use crate::{
    audit::{Event, EventKind},
    error::{Error, Result},
    gate::WriteCaller,
    ids::{SessionId, SubjectId},
    users,
};

impl Sessions {
    /// Revokes a session. Returns the consistency token. The revocation of a session that has
    /// ended succeeds and records nothing.
    pub(super) async fn revoke(
        &self,
        write_caller: &WriteCaller,
        session: SessionId,
    ) -> Result<String> {
        let tenant = write_caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let user =
            store::find_user(&mut tx, tenant, session, write_caller.only_accessible_user()).await?;
        let user = user.ok_or_else(Error::not_found)?;
        let caller = write_caller.authorize_take(&mut tx, user).await?;
        let result = store::revoke(&mut tx, tenant, session, Some(user), "revoked").await?;
        let (session_before, ended_sessions) = result.ok_or_else(Error::not_found)?;
        let event = session_before.was_live.then(|| {
            let event = Event::new(EventKind::SessionRevoked).target(session.0);
            event.detail("user_id", session_before.user.to_string())
        });
        self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await
    }

    /// Revokes all live sessions of `requested_user`, or of the caller when it is `None`. Returns
    /// the number of revoked sessions and the consistency token. Records nothing when the user had
    /// no live session.
    pub(super) async fn revoke_all(
        &self,
        write_caller: &WriteCaller,
        requested_user: Option<SubjectId>,
    ) -> Result<(u64, String)> {
        let user = write_caller.target(requested_user)?;
        let tenant = write_caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        if !users::store::exists(&mut tx, tenant, user).await? {
            return Err(Error::not_found());
        }
        let caller = write_caller.authorize_take(&mut tx, user).await?;
        let except = None;
        let (count, ended_sessions) =
            store::revoke_all(&mut tx, tenant, user, except, "revoked").await?;
        let event = (count > 0)
            .then(|| Event::new(EventKind::SessionsRevoked).target(user.0).detail("count", count));
        Ok((count, self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await?))
    }
}
