//! ChangePassword: the current one for a new one.

use std::sync::Arc;

use super::{Auth, attempt::to_the_end, end_guess, failures::SignIn, invalid_credentials};
use crate::{
    audit::{self, Event, EventKind},
    error::{Error, Result},
    gate::Caller,
    passwords::{self, Outcome, Place, Presented},
    proto::v1::{ChangePasswordRequest, ErrorReason},
    sessions, tenants,
    users::{self, credentials, email},
};

impl Auth {
    /// The change's consistency token.
    pub(super) async fn change_password(
        &self,
        sign_in: &Arc<SignIn>,
        caller: &Caller,
        message: ChangePasswordRequest,
    ) -> Result<String> {
        let (auth, sign_in, caller) = (self.clone(), sign_in.clone(), caller.clone());
        to_the_end(|_| async move { auth.try_to_change(&sign_in, &caller, message).await }).await
    }

    async fn try_to_change(
        &self,
        sign_in: &SignIn,
        caller: &Caller,
        message: ChangePasswordRequest,
    ) -> Result<String> {
        let (tenant, user) = (caller.home(), caller.user());
        sign_in.count(tenant)?;
        let mut place = self.hasher.place(tenant)?;
        let mut tx = self.db.begin(tenant).await?;
        let row = users::store::get(&mut tx, tenant, user).await?;
        let organisation = tenants::store::get(&mut tx, tenant).await?;
        let kept = credentials::get(&mut tx, tenant, user).await?;
        // No connection is held while passwords are hashed.
        drop(tx);

        let new = passwords::normalise(&message.new_password);
        passwords::check_in(&organisation, &new, "new_password", &row.email, self.min_length)?;
        let current = Presented::new(&message.current_password);
        let email_key = email::key(&row.email);
        let guess = self.limits.guess(tenant, &email_key, caller.origin().ip).await?;
        let verified = self.verify_current(&mut place, caller, &current, kept).await;
        end_guess(guess, verified.as_ref().err()).await;
        let verified = verified?;
        let hash = place.hash(new).await?;
        drop(place);
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
        if !credentials::replace(&mut tx, tenant, user, verified, new).await? {
            drop(tx);
            return Err(self.failed(caller).await?);
        }
        let but_this = Some(caller.session());
        let ended =
            sessions::store::revoke_all(&mut tx, tenant, user, but_this, "password_changed")
                .await?;
        let event = Event::new(EventKind::PasswordChanged).target(user.0);
        let event = event.detail("sessions_revoked", ended);
        audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        let token = tx.consistency_token().await?;
        tx.commit().await?;
        self.cache.forget(tenant).await;
        Ok(token)
    }

    /// The hash that the password was found right by. A failure is recorded.
    async fn verify_current(
        &self,
        place: &mut Place,
        caller: &Caller,
        password: &Presented,
        kept: Option<String>,
    ) -> Result<String> {
        let outcome = place.verify(password, kept.as_deref()).await?;
        if let Some(kept) = kept.filter(|_| outcome != Outcome::Wrong) {
            return Ok(kept);
        }
        Err(self.failed(caller).await?)
    }

    /// The refusal, once it is recorded.
    async fn failed(&self, caller: &Caller) -> Result<Error> {
        let event = Event::new(EventKind::PasswordChangeFailed).target(caller.user().0);
        audit::record_alone(&self.db, caller.home(), &caller.actor(), event).await?;
        Ok(invalid_credentials())
    }
}
