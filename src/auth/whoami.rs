//! WhoAmI and Logout: what a caller asks and does about itself.

use super::Auth;
use crate::{
    audit::{self, Event, EventKind},
    error::{Error, Result},
    gate::Caller,
    ids::SessionId,
    proto::v1::WhoAmIResponse,
    service_accounts, sessions, tenants,
    tokens::SubjectType,
    users,
};

impl Auth {
    pub(super) async fn who_am_i(&self, caller: &Caller) -> Result<WhoAmIResponse> {
        let (tenant, user) = (caller.home(), caller.user());
        let standing = caller.standing();
        let mut tx = self.db.begin(tenant).await?;
        let (user, service_account) = match caller.subject_type() {
            SubjectType::User => {
                (Some(users::store::get(&mut tx, tenant, user).await?.into()), None)
            }
            SubjectType::ServiceAccount => {
                let account = service_accounts::store::get(&mut tx, tenant, user).await?;
                (None, Some(account.into()))
            }
        };
        let tenant_row = tenants::store::get(&mut tx, tenant).await?;
        let permissions = standing.held_everywhere().await;
        Ok(WhoAmIResponse {
            user,
            service_account,
            tenant: Some(tenant_row.into()),
            session_id: caller.session().to_string(),
            roles: standing.role_names(),
            permissions,
        })
    }

    /// Ends one of the caller's own sessions; its consistency token.
    pub(super) async fn logout(&self, caller: &Caller, named: &str) -> Result<String> {
        let (tenant, user) = (caller.home(), caller.user());
        let session =
            SessionId::parse_optional("session_id", named)?.unwrap_or_else(|| caller.session());
        let mut tx = self.db.begin(tenant).await?;
        let ended =
            sessions::store::revoke(&mut tx, tenant, session, Some(user), "signed_out").await?;
        if ended.ok_or_else(Error::not_found)?.was_live {
            let event = Event::new(EventKind::SignedOut).target(session.0);
            audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        }
        let token = tx.consistency_token().await?;
        tx.commit().await?;
        self.cache.forget(tenant).await;
        Ok(token)
    }
}
