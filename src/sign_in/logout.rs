//! `Logout`: ends one of the caller's own sessions.

use super::SignIns;
use crate::{
    audit::{Event, EventKind},
    error::{Error, Result},
    gate::Caller,
    ids::SessionId,
    sessions,
};

impl SignIns {
    /// Ends the requested session; the caller's current session if `requested_session` is empty.
    /// Returns the consistency token. If the session has already ended, the call succeeds and
    /// records nothing.
    ///
    /// # Errors
    /// `NOT_FOUND` when the caller has no such session.
    pub async fn logout(&self, caller: &Caller, requested_session: &str) -> Result<String> {
        let (tenant, user) = (caller.own_tenant(), caller.user());
        let session = SessionId::parse_optional("session_id", requested_session)?
            .unwrap_or_else(|| caller.session());
        let mut tx = self.db.begin(tenant).await?;
        let result =
            sessions::store::revoke(&mut tx, tenant, session, Some(user), "signed_out").await?;
        let (session_before, ended_sessions) = result.ok_or_else(Error::not_found)?;
        let event = Event::new(EventKind::SignedOut).target(session.0);
        let event = session_before.was_live.then_some(event);
        self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await
    }
}
