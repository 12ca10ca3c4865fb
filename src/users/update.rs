//! `UpdateUser`.

use std::{sync::Arc, time::Duration};

use super::{
    Users,
    store::{self, UserRow},
};
use crate::{
    api::update_mask::{Mask, check_etag},
    audit::{self, Event, EventKind},
    credentials::{
        current_password::{self, Attempt},
        invalid_credentials, password,
    },
    db::TenantTx,
    email,
    error::{Error, Result},
    gate::{Caller, WriteCaller},
    ids::{TenantId, UserId},
    limits::{Owner, RateClass},
    mail::EmailChanged,
    passwords::Presented,
    proto::v1::{ErrorReason, UpdateUserRequest, UpdateUserResponse},
    sessions,
    sign_in::{SignIn, attempt::run_to_end},
};

/// Maximum age of a sign-in whose session may change the user's own email without the current
/// password.
const MAX_SIGN_IN_AGE: Duration = Duration::from_mins(5);

/// The audit event of an email change that is refused because of a wrong password.
const WRONG_PASSWORD_EVENT: EventKind = EventKind::EmailChangeFailed;

impl Users {
    pub(super) async fn update(
        &self,
        acting: &WriteCaller,
        user: UserId,
        message: UpdateUserRequest,
        sign_in: &Arc<SignIn>,
    ) -> Result<UpdateUserResponse> {
        let tenant = acting.tenant();
        let mask = Mask::read(message.update_mask.as_ref(), &["display_name", "email"])?;
        let display_name = mask.take("display_name", message.display_name)?;
        let email = mask.take("email", message.email)?;
        let verified_hash = match (acting.itself(user), &email, &message.current_password) {
            (Some(caller), Some(_), Some(password)) => {
                Some(self.verify(sign_in, caller, password).await?)
            }
            _ => None,
        };
        let mut tx = self.db.begin(tenant).await?;
        let mut row = store::lock(&mut tx, tenant, user).await?;
        check_etag(&message.etag, row.version)?;
        let before = row.clone();
        let is_new_email = email.as_ref().is_some_and(|email| *email != before.email);
        let caller = if is_new_email {
            self.admit_email_change(&mut tx, acting, user, verified_hash.as_deref()).await?
        } else {
            acting.authorize_take(&mut tx, user).await?
        };
        if let Some(display_name) = display_name {
            row.display_name = display_name;
        }
        if let Some(email) = email {
            row.email_verified &= email::key(&email) == email::key(&row.email);
            row.email = email;
        }
        let row = store::update(&mut tx, &row).await?;
        let event = update_event(&before, &row);
        if is_new_email {
            self.queue_notice(&mut tx, tenant, before).await?;
        }
        let consistency_token = audit::finish(tx, &caller.actor(), event).await?;
        if let (Some(mails), true) = (&self.mails, is_new_email) {
            mails.send_notices();
        }
        Ok(UpdateUserResponse { user: Some(row.into()), consistency_token })
    }

    /// Verifies the caller's current password. Returns the stored hash that the password matched.
    async fn verify(
        &self,
        sign_in: &Arc<SignIn>,
        caller: &Caller,
        password: &str,
    ) -> Result<String> {
        let (tenant, user) = (caller.home(), caller.user());
        self.limits.network(RateClass::SignIn, caller.origin().ip).await?;
        self.limits.tenant(RateClass::SignIn, tenant).await?;
        let owner = Owner::new(tenant, caller.origin().ip);
        let password = Presented::new(password);
        sign_in.count(owner, &password, 1)?;
        let mut slot = self.hasher.slot(owner)?;
        let (db, limits, caller) = (self.db.clone(), self.limits.clone(), caller.clone());
        let sign_in = sign_in.clone();
        run_to_end(|_| async move {
            // Keeps the sign-in counted as in progress until this work ends.
            let _in_progress = sign_in;
            let mut tx = db.begin(tenant).await?;
            let row = store::get(&mut tx, tenant, user).await?;
            let stored_hash = password::get(&mut tx, tenant, user).await?;
            // No connection is held while the password is hashed.
            drop(tx);
            let (caller, email_key) = (&caller, &email::key(&row.email));
            let password = &password;
            let attempt = Attempt {
                caller,
                email_key,
                password,
                kept: stored_hash,
                failed: WRONG_PASSWORD_EVENT,
            };
            current_password::verify(&db, &limits, &mut slot, attempt).await
        })
        .await
    }

    /// Admits a change of a locked user's email. An email gives access to the account through a
    /// password reset, so a change of another user's email needs the right to use that account. A
    /// change of one's own email needs more than an access token, because a token may be stolen.
    async fn admit_email_change<'a>(
        &self,
        tx: &mut TenantTx,
        acting: &'a WriteCaller,
        user: UserId,
        verified_hash: Option<&str>,
    ) -> Result<&'a Caller> {
        let caller = acting.authorize_use(tx, user).await?;
        if acting.itself(user).is_some() {
            match verified_hash {
                Some(hash) => check_unchanged(tx, caller, hash).await?,
                None => check_fresh(tx, caller).await?,
            }
        }
        Ok(caller)
    }

    /// Queues a mail to the old address, if the server sends mail.
    async fn queue_notice(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        before: UserRow,
    ) -> Result<()> {
        let Some(mails) = &self.mails else { return Ok(()) };
        let changed = EmailChanged {
            user: before.user_id,
            old_email: before.email,
            was_verified: before.email_verified,
        };
        mails.queue_email_changed(tx, tenant, &changed).await
    }
}

/// Checks that the stored password hash is still the one that was verified.
async fn check_unchanged(tx: &mut TenantTx, caller: &Caller, verified_hash: &str) -> Result<()> {
    let stored_hash = password::get(tx, caller.home(), caller.user()).await?;
    if stored_hash.as_deref() == Some(verified_hash) { Ok(()) } else { Err(invalid_credentials()) }
}

async fn check_fresh(tx: &mut TenantTx, caller: &Caller) -> Result<()> {
    let (tenant, user, session) = (caller.home(), caller.user(), caller.session());
    if sessions::store::is_fresh(tx, tenant, session, user, MAX_SIGN_IN_AGE).await? {
        return Ok(());
    }
    Err(Error::refused(
        ErrorReason::SignInNotFresh,
        "a change of one's own email requires current_password, or a sign-in in the last 5 minutes",
    ))
}

/// The audit event, with the names of the changed fields. The audit trail never contains personal
/// data.
fn update_event(before: &UserRow, after: &UserRow) -> Event {
    let fields = [
        ("display_name", before.display_name != after.display_name),
        ("email", before.email != after.email),
    ];
    Event::new(EventKind::UserUpdated)
        .target(after.user_id.0)
        .list("fields", fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name))
        .change("email_verified", before.email_verified, after.email_verified)
}
