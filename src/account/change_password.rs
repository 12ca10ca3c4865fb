//! `ChangePassword`: verifies the current password and sets a new one.

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
    limits::WorkOwner,
    passwords::{self, PresentedPassword},
    proto::v1::{ChangePasswordRequest, ErrorReason},
    sessions,
    sign_in::{SignInAttempt, attempt::run_to_end},
    tenants, users,
};

/// The audit event of a change that was refused because of a wrong current password.
const FAILURE_EVENT: EventKind = EventKind::PasswordChangeFailed;

impl Accounts {
    /// Changes the password of the caller. Returns the consistency token. The change continues even
    /// if the client cancels the call.
    pub async fn change_password(
        &self,
        sign_in: &Arc<SignInAttempt>,
        caller: &Caller,
        message: ChangePasswordRequest,
    ) -> Result<String> {
        let (accounts, sign_in, caller) = (self.clone(), sign_in.clone(), caller.clone());
        let change = |_| async move {
            Box::pin(accounts.verify_and_change(&sign_in, &caller, message)).await
        };
        run_to_end(change).await
    }

    async fn verify_and_change(
        &self,
        sign_in: &SignInAttempt,
        caller: &Caller,
        message: ChangePasswordRequest,
    ) -> Result<String> {
        let (tenant, user) = (caller.own_tenant(), caller.user());
        let owner = WorkOwner::new(tenant, caller.origin().ip);
        let password = &PresentedPassword::new(&message.current_password);
        let account_count = 1;
        sign_in.reserve(owner, password, account_count)?;
        let mut slot = self.hasher.take_slot(owner)?;
        let mut tx = self.db.begin(tenant).await?;
        let row = users::store::get(&mut tx, tenant, user).await?;
        let tenant_row = tenants::store::get(&mut tx, tenant).await?;
        let stored_hash = password::get(&mut tx, tenant, user).await?;
        // No connection is held while passwords are hashed.
        drop(tx);

        let new_password = passwords::normalise(&message.new_password);
        let policy = self.password_policy;
        tenants::check_password(&tenant_row, policy, "new_password", &new_password, &row.email)?;
        let normalized_email = email::normalized(&row.email);
        let attempt = Attempt {
            caller,
            normalized_email: &normalized_email,
            password,
            stored_hash,
            failure_event: FAILURE_EVENT,
        };
        let verified_hash =
            current_password::verify(&self.db, &self.limits, &mut slot, attempt).await?;
        let new_hash = slot.hash(new_password).await?;
        drop(slot);
        self.replace_hash(caller, &verified_hash, &new_hash).await
    }

    /// Replaces the verified hash if this hash is still stored, and if the user and the session of
    /// the caller are still active.
    async fn replace_hash(
        &self,
        caller: &Caller,
        verified_hash: &str,
        new_hash: &str,
    ) -> Result<String> {
        let (tenant, user) = (caller.own_tenant(), caller.user());
        let mut tx = self.db.begin(tenant).await?;
        // The row lock excludes a concurrent transaction that disables the user.
        users::store::lock(&mut tx, tenant, user).await?;
        if !sessions::store::lock_live(&mut tx, tenant, user, caller.session()).await? {
            return Err(Error::refused(
                ErrorReason::TokenInvalid,
                "the access token is not in force",
            ));
        }
        // If another call has changed the password since it was verified, the verified password is
        // wrong now, so the refusal is that of a wrong password.
        if !password::replace(&mut tx, tenant, user, verified_hash, new_hash).await? {
            drop(tx);
            return Err(current_password::record_refusal(&self.db, caller, FAILURE_EVENT).await?);
        }
        let current_session = Some(caller.session());
        let (count, ended_sessions) =
            sessions::store::revoke_all(&mut tx, tenant, user, current_session, "password_changed")
                .await?;
        let event = Event::new(EventKind::PasswordChanged).target(user.0);
        let event = event.detail("sessions_revoked", count);
        self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await
    }
}
