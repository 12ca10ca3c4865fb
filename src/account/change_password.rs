//! ChangePassword: the current one for a new one.

use std::sync::Arc;

use super::Accounts;
use crate::{
    audit::{Event, EventKind},
    credentials::{
        current_password::{self, Attempt},
        password,
    },
    email,
    error::{Error, Result},
    gate::Caller,
    limits::Owner,
    passwords::{self, Presented},
    proto::v1::{ChangePasswordRequest, ErrorReason},
    sessions,
    sign_in::{SignIn, attempt::run_to_end},
    tenants, users,
};

/// The event of a change that a wrong password stopped.
const FAILED: EventKind = EventKind::PasswordChangeFailed;

impl Accounts {
    /// The change's consistency token.
    pub async fn change_password(
        &self,
        sign_in: &Arc<SignIn>,
        caller: &Caller,
        message: ChangePasswordRequest,
    ) -> Result<String> {
        let (auth, sign_in, caller) = (self.clone(), sign_in.clone(), caller.clone());
        let change =
            |_| async move { Box::pin(auth.try_to_change(&sign_in, &caller, message)).await };
        run_to_end(change).await
    }

    async fn try_to_change(
        &self,
        sign_in: &SignIn,
        caller: &Caller,
        message: ChangePasswordRequest,
    ) -> Result<String> {
        let (tenant, user) = (caller.home(), caller.user());
        let owner = Owner::new(tenant, caller.origin().ip);
        let password = &Presented::new(&message.current_password);
        sign_in.count(owner, password, 1)?;
        let mut slot = self.hasher.slot(owner)?;
        let mut tx = self.db.begin(tenant).await?;
        let row = users::store::get(&mut tx, tenant, user).await?;
        let tenant_row = tenants::store::get(&mut tx, tenant).await?;
        let kept = password::get(&mut tx, tenant, user).await?;
        // No connection is held while passwords are hashed.
        drop(tx);

        let new = passwords::normalise(&message.new_password);
        let policy = self.password_policy;
        tenants::check_password(&tenant_row, policy, "new_password", &new, &row.email)?;
        let email_key = email::key(&row.email);
        let attempt = Attempt { caller, email_key: &email_key, password, kept, failed: FAILED };
        let verified = current_password::verify(&self.db, &self.limits, &mut slot, attempt).await?;
        let hash = slot.hash(new).await?;
        drop(slot);
        self.replace_verified(caller, &verified, &hash).await
    }

    /// Replaces the hash that was verified, if it, the caller and its session are in
    /// force still.
    async fn replace_verified(&self, caller: &Caller, verified: &str, new: &str) -> Result<String> {
        let (tenant, user) = (caller.home(), caller.user());
        let mut tx = self.db.begin(tenant).await?;
        // The lock orders this against a disabling.
        users::store::lock(&mut tx, tenant, user).await?;
        if !sessions::store::lock_live(&mut tx, tenant, user, caller.session()).await? {
            return Err(Error::refused(
                ErrorReason::TokenInvalid,
                "the access token is not in force",
            ));
        }
        if !password::replace(&mut tx, tenant, user, verified, new).await? {
            drop(tx);
            return Err(current_password::refusal(&self.db, caller, FAILED).await?);
        }
        let but_this = Some(caller.session());
        let (count, ended) =
            sessions::store::revoke_all(&mut tx, tenant, user, but_this, "password_changed")
                .await?;
        let event = Event::new(EventKind::PasswordChanged).target(user.0);
        let event = event.detail("sessions_revoked", count);
        self.cache.finish(tx, &caller.actor(), event, ended).await
    }
}
