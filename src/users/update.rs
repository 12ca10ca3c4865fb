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
    ids::{SubjectId, TenantId},
    limits::{RateClass, WorkOwner},
    mail::EmailChanged,
    passwords::PresentedPassword,
    proto::v1::{ErrorReason, UpdateUserRequest, UpdateUserResponse},
    sessions,
    sign_in::{SignInAttempt, attempt::run_to_end},
};

/// Maximum age of a sign-in whose session may change the user's own email without the current
/// password.
const MAX_SIGN_IN_AGE: Duration = Duration::from_mins(5);

/// The audit event of an email change that is refused because of a wrong password.
const WRONG_PASSWORD_EVENT: EventKind = EventKind::EmailChangeFailed;

impl Users {
    pub(super) async fn update(
        &self,
        write_caller: &WriteCaller,
        user: SubjectId,
        message: UpdateUserRequest,
        sign_in: &Arc<SignInAttempt>,
    ) -> Result<UpdateUserResponse> {
        let tenant = write_caller.tenant();
        let mask = Mask::read(message.update_mask.as_ref(), &["display_name", "email"])?;
        let display_name = mask.take("display_name", message.display_name)?;
        let email = mask.take("email", message.email)?;
        let verified_hash =
            match (write_caller.caller_if_target(user), &email, &message.current_password) {
                (Some(caller), Some(_), Some(password)) => {
                    Some(self.verify_current_password(sign_in, caller, password).await?)
                }
                _ => None,
            };
        let mut tx = self.db.begin(tenant).await?;
        let mut row = store::lock(&mut tx, tenant, user).await?;
        check_etag(&message.etag, row.version)?;
        let old_row = row.clone();
        let is_new_email = email.as_ref().is_some_and(|email| *email != old_row.email);
        if let (true, Some(email)) = (is_new_email, &email) {
            email::check("email", email)?;
        }
        let is_new_address = email
            .as_ref()
            .is_some_and(|email| email::normalized(email) != email::normalized(&old_row.email));
        // If the server sends mail, a caller without the permission must use `ChangeEmail`, which
        // requires a proof of the new address. The refusal comes before the update, so the caller
        // does not learn from EMAIL_TAKEN which emails other users have.
        if is_new_address
            && self.mail_queue.is_some()
            && write_caller.only_accessible_user().is_some()
        {
            let text = "change your own email with ChangeEmail";
            return Err(Error::refused(ErrorReason::EmailProofRequired, text));
        }
        let caller = if is_new_email {
            self.admit_email_change(&mut tx, write_caller, user, verified_hash.as_deref()).await?
        } else {
            write_caller.authorize_take(&mut tx, user).await?
        };
        if let Some(display_name) = display_name {
            row.display_name = display_name;
        }
        if let Some(email) = email {
            // Another address is not verified yet.
            row.email_verified &= email::normalized(&email) == email::normalized(&row.email);
            row.email = email;
        }
        let row = store::update(&mut tx, &row).await?;
        let event = update_event(&old_row, &row);
        if is_new_email {
            self.queue_notice(&mut tx, tenant, old_row).await?;
        }
        let consistency_token = audit::finish(tx, &caller.actor(), event).await?;
        if let (Some(mail_queue), true) = (&self.mail_queue, is_new_email) {
            mail_queue.send_queued();
        }
        Ok(UpdateUserResponse { user: Some(row.into()), consistency_token })
    }

    /// Verifies the caller's current password. Returns the stored hash that the password matched.
    async fn verify_current_password(
        &self,
        sign_in: &Arc<SignInAttempt>,
        caller: &Caller,
        password: &str,
    ) -> Result<String> {
        let (tenant, user) = (caller.own_tenant(), caller.user());
        self.limits.count_for_network(RateClass::SignIn, caller.origin().ip).await?;
        self.limits.count_for_tenant(RateClass::SignIn, tenant).await?;
        let owner = WorkOwner::new(tenant, caller.origin().ip);
        let password = PresentedPassword::new(password);
        sign_in.reserve(owner, &password, 1)?;
        let mut slot = self.hasher.take_slot(owner)?;
        let (db, limits, caller) = (self.db.clone(), self.limits.clone(), caller.clone());
        let sign_in = sign_in.clone();
        run_to_end(|_| async move {
            // The sign-in counts as in progress until this value is dropped.
            let _in_progress = sign_in;
            let mut tx = db.begin(tenant).await?;
            let row = store::get(&mut tx, tenant, user).await?;
            let stored_hash = password::get(&mut tx, tenant, user).await?;
            // The connection returns to the pool before the password is hashed.
            drop(tx);
            let (caller, normalized_email) = (&caller, &email::normalized(&row.email));
            let password = &password;
            let attempt = Attempt {
                caller,
                normalized_email,
                password,
                stored_hash,
                failure_event: WRONG_PASSWORD_EVENT,
            };
            current_password::verify(&db, &limits, &mut slot, attempt).await
        })
        .await
    }

    /// Checks that the caller may change the email of a user whose row is locked. A password reset
    /// by email gives access to the account, so a change of another user's email needs the right to
    /// use that account. A change of one's own email needs more than an access token, because a
    /// token may be stolen.
    async fn admit_email_change<'a>(
        &self,
        tx: &mut TenantTx,
        write_caller: &'a WriteCaller,
        user: SubjectId,
        verified_hash: Option<&str>,
    ) -> Result<&'a Caller> {
        let caller = write_caller.authorize_use(tx, user).await?;
        if write_caller.caller_if_target(user).is_some() {
            match verified_hash {
                Some(hash) => check_unchanged(tx, caller, hash).await?,
                None => check_recent_sign_in(tx, caller).await?,
            }
        }
        Ok(caller)
    }

    /// Queues a mail to the old address, if the server sends mail.
    async fn queue_notice(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        old_row: UserRow,
    ) -> Result<()> {
        let Some(mail_queue) = &self.mail_queue else { return Ok(()) };
        let email_changed = EmailChanged {
            user: old_row.user_id,
            old_email: old_row.email,
            was_verified: old_row.email_verified,
        };
        mail_queue.queue_email_changed(tx, tenant, &email_changed).await
    }
}

/// Checks that the stored password hash is still the verified hash.
async fn check_unchanged(tx: &mut TenantTx, caller: &Caller, verified_hash: &str) -> Result<()> {
    let stored_hash = password::get(tx, caller.own_tenant(), caller.user()).await?;
    if stored_hash.as_deref() == Some(verified_hash) { Ok(()) } else { Err(invalid_credentials()) }
}

/// Checks that the caller's session was opened within [`MAX_SIGN_IN_AGE`].
async fn check_recent_sign_in(tx: &mut TenantTx, caller: &Caller) -> Result<()> {
    let (tenant, user, session) = (caller.own_tenant(), caller.user(), caller.session());
    if sessions::store::was_opened_within(tx, tenant, session, user, MAX_SIGN_IN_AGE).await? {
        return Ok(());
    }
    Err(Error::refused(
        ErrorReason::SignInNotFresh,
        "a change of one's own email requires current_password, or a sign-in in the last 5 minutes",
    ))
}

/// The audit event, with the names of the changed fields, but without their values, which are
/// personal data.
fn update_event(old_row: &UserRow, new_row: &UserRow) -> Event {
    let fields = [
        ("display_name", old_row.display_name != new_row.display_name),
        ("email", old_row.email != new_row.email),
    ];
    Event::new(EventKind::UserUpdated)
        .target(new_row.user_id.0)
        .list("fields", fields.into_iter().filter(|(_, changed)| *changed).map(|(name, _)| name))
        .change("email_verified", old_row.email_verified, new_row.email_verified)
}
