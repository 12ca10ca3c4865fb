//! ChangePassword: the current one for a new one.

use super::{Auth, invalid_credentials};
use crate::{
    audit::{self, Event},
    error::Result,
    gate::Caller,
    passwords::{self, Outcome},
    proto::v1::ChangePasswordRequest,
    sessions, tenants,
    users::{self, credentials},
};

impl Auth {
    /// The change's consistency token.
    pub(super) async fn change_password(
        &self,
        caller: &Caller,
        message: ChangePasswordRequest,
    ) -> Result<String> {
        let (tenant, user) = (caller.home(), caller.user());
        let mut tx = self.db.begin(tenant).await?;
        let row = users::store::get(&mut tx, tenant, user).await?;
        let organisation = tenants::store::get(&mut tx, tenant).await?;
        let kept = credentials::get(&mut tx, tenant, user).await?;
        // No connection is held while passwords are hashed.
        drop(tx);

        let new = passwords::normalise(&message.new_password);
        passwords::check_in(&organisation, &new, "new_password", &row.email, self.min_length)?;
        let current = passwords::normalise(&message.current_password);
        let outcome = self.hasher.verify(current, kept.clone()).await?;
        let kept = kept.filter(|_| outcome != Outcome::Wrong);
        let Some(verified) = kept else {
            let event = Event::new("password_change_failed").target(user.0);
            audit::record_alone(&self.db, tenant, &caller.actor(), event).await?;
            return Err(invalid_credentials());
        };
        let hash = self.hasher.hash(new).await?;

        let mut tx = self.db.begin(tenant).await?;
        if !credentials::replace(&mut tx, tenant, user, &verified, &hash).await? {
            return Err(invalid_credentials());
        }
        let but_this = Some(caller.session());
        sessions::store::revoke_all(&mut tx, tenant, user, but_this, "password_changed").await?;
        let event = Event::new("password_changed").target(user.0);
        audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        let token = tx.consistency_token().await?;
        tx.commit().await?;
        self.cache.forget(tenant).await;
        Ok(token)
    }
}
