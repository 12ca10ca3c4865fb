//! `VerifyEmail`: uses the link of a mail. The link proves that its bearer can read the mails to
//! the address. So the call verifies the email of a user, changes this email, or completes a
//! registration.

use super::{
    Accounts,
    join::self_registration_role,
    register::{NewUser, add_user_with_role, registration_closed},
    registrations::{self, Registration},
};
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::invalid_credentials,
    db::TenantTx,
    email,
    error::{Error, Result, reason_text},
    gate::NamedTenant,
    ids::TenantId,
    limits::WorkOwner,
    mail::{self, EmailChanged, Link, Purpose},
    passwords::{Comparison, PresentedPassword},
    proto::v1::{ErrorReason, VerifyEmailRequest, VerifyEmailResponse},
    tenants,
    users::{self, store::UserRow},
};

/// The purposes of the links that prove an address. This method refuses links for a password reset.
const PURPOSES: &[Purpose] =
    &[Purpose::EmailVerification, Purpose::EmailChange, Purpose::Registration];

impl Accounts {
    /// Uses a link that proves an address.
    ///
    /// # Errors
    /// `TOKEN_INVALID` when the link is not valid; `EMAIL_TAKEN` when another user of the tenant
    /// has the address. For a registration: `INVALID_CREDENTIALS` when the password is not the
    /// one of the registration, and `REGISTRATION_CLOSED` when the tenant has closed
    /// registration.
    pub async fn verify_email(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: VerifyEmailRequest,
    ) -> Result<VerifyEmailResponse> {
        let (link, charged_tenant) =
            self.admit_link(PURPOSES, named, origin, message.token.clone()).await?;
        let key = Key {
            tenant: link.tenant,
            actor: None,
            method: "VerifyEmail",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let result = if link.purpose == Purpose::Registration {
            self.complete_registration(&link, charged_tenant, origin, &message.password, &key).await
        } else {
            self.prove_address(&link, charged_tenant, origin, &key).await
        };
        match result {
            Ok(Some(response)) => Ok(response),
            Ok(None) => Err(self.record_link_refusal(&link, origin).await?),
            Err(error) => Err(self.record_and_return_error(&link, origin, error).await?),
        }
    }

    /// Verifies or changes the email of the link's user; `None` if the link is not valid.
    async fn prove_address(
        &self,
        link: &Link,
        charged_tenant: TenantId,
        origin: &Origin,
        key: &Key<'_>,
    ) -> Result<Option<VerifyEmailResponse>> {
        let mut tx = self.db.begin_in_share(charged_tenant, link.tenant).await?;
        if let Some(response) = idempotency::find_response(&mut tx, key).await? {
            return Ok(Some(response));
        }
        // An invalid link is refused here before it locks a user.
        if mail::find_link(&mut tx, link).await?.is_none() {
            return Ok(None);
        }
        let mut row = match users::store::lock(&mut tx, link.tenant, link.user).await {
            Err(error) if error.reason() == ErrorReason::NotFound => return Ok(None),
            row => row?,
        };
        // A concurrent call may have used the link while this call waited for the lock.
        let Some(valid_link) = mail::find_link(&mut tx, link).await? else { return Ok(None) };
        let old_row = row.clone();
        row.email_verified = true;
        if let Some(new_email) = valid_link.new_email {
            row.email = new_email;
        }
        let row = users::store::update(&mut tx, &row).await?;
        mail::end_link(&mut tx, link).await?;
        let is_other_address = email::normalized(&old_row.email) != email::normalized(&row.email);
        if is_other_address {
            self.queue_notice(&mut tx, &old_row).await?;
        }
        let event = proof_event(&old_row, &row);
        let consistency_token =
            audit::record_with_token(&mut tx, &Actor::anonymous(origin), event).await?;
        let response = VerifyEmailResponse { consistency_token, ..VerifyEmailResponse::default() };
        idempotency::store_response(&mut tx, key, link.user.0, &response).await?;
        tx.commit().await?;
        if is_other_address && let Some(mail_queue) = &self.mail_queue {
            mail_queue.send_queued();
        }
        Ok(Some(response))
    }

    /// Queues a mail to the old address that reports the change, if the server sends mail.
    async fn queue_notice(&self, tx: &mut TenantTx, old_row: &UserRow) -> Result<()> {
        let Some(mail_queue) = &self.mail_queue else { return Ok(()) };
        let notice = EmailChanged {
            user: old_row.user_id,
            old_email: old_row.email.clone(),
            was_verified: old_row.email_verified,
        };
        mail_queue.queue_email_changed(tx, old_row.tenant_id, &notice).await
    }

    /// Creates the user of a registration; `None` if the link is not valid. The password proves
    /// that the bearer of the link has made the registration. Otherwise a stranger could register
    /// the email of another person, wait until this person follows the link, and then sign in
    /// with the password that the stranger has chosen.
    async fn complete_registration(
        &self,
        link: &Link,
        charged_tenant: TenantId,
        origin: &Origin,
        password: &str,
        key: &Key<'_>,
    ) -> Result<Option<VerifyEmailResponse>> {
        if password.is_empty() {
            return Err(Error::field("password", "is required to complete a registration"));
        }
        let mut tx = self.db.begin_in_share(charged_tenant, link.tenant).await?;
        if let Some(response) = idempotency::find_response(&mut tx, key).await? {
            return Ok(Some(response));
        }
        let Some(registration) = registrations::find(&mut tx, link).await? else {
            return Ok(None);
        };
        // No connection is held while a password is hashed.
        drop(tx);
        let mut slot = self.hasher.take_slot(WorkOwner::new(link.tenant, origin.ip))?;
        let password = PresentedPassword::new(password);
        let stored_hash = registration.password_hash.as_str();
        let comparison = slot.verify(link.tenant, &password, Some(stored_hash)).await?;
        drop(slot);
        if comparison == Comparison::Mismatch {
            return Err(invalid_credentials());
        }
        self.create_registered_user(link, origin, key).await
    }

    /// Creates the user and deletes the registration in one transaction; `None` if the link is no
    /// longer valid.
    async fn create_registered_user(
        &self,
        link: &Link,
        origin: &Origin,
        key: &Key<'_>,
    ) -> Result<Option<VerifyEmailResponse>> {
        let mut tx = self.db.begin(link.tenant).await?;
        if let Some(response) = idempotency::find_response(&mut tx, key).await? {
            return Ok(Some(response));
        }
        let Some(registration) = registrations::take(&mut tx, link).await? else {
            return Ok(None);
        };
        // Registration may have been closed since the call of Register.
        let tenant_row = tenants::store::get(&mut tx, link.tenant).await?;
        let role = self_registration_role(&mut tx, &tenant_row).await?;
        let role = role.ok_or_else(registration_closed)?;
        let Registration { email, display_name, password_hash } = &registration;
        let new_user = NewUser {
            id: link.user,
            email,
            display_name,
            password_hash,
            email_verified: true,
            role,
        };
        let (user_row, tenant_row, consistency_token) =
            add_user_with_role(&mut tx, link.tenant, origin, new_user).await?;
        let response = VerifyEmailResponse {
            user: Some(user_row.into()),
            tenant: Some(tenant_row.into()),
            consistency_token,
        };
        idempotency::store_response(&mut tx, key, link.user.0, &response).await?;
        tx.commit().await?;
        Ok(Some(response))
    }

    /// Records the error in the audit trail if it is a refusal of a valid link, and returns the
    /// error. The transaction of the refused call was rolled back, so the link stays valid.
    async fn record_and_return_error(
        &self,
        link: &Link,
        origin: &Origin,
        error: Error,
    ) -> Result<Error> {
        let is_refusal = matches!(
            error.reason(),
            ErrorReason::EmailTaken
                | ErrorReason::InvalidCredentials
                | ErrorReason::RegistrationClosed
        );
        if is_refusal {
            let event = Event::new(EventKind::EmailVerificationFailed).target(link.user.0);
            let event = event.detail("reason", reason_text(error.reason()));
            self.record_link_event(link, origin, event).await?;
        }
        Ok(error)
    }
}

/// The audit event of a proved address. The event of a changed email has the same kind as the
/// events of other changes of a user.
fn proof_event(old_row: &UserRow, new_row: &UserRow) -> Event {
    if old_row.email == new_row.email {
        return Event::new(EventKind::EmailVerified).target(new_row.user_id.0);
    }
    Event::new(EventKind::UserUpdated)
        .target(new_row.user_id.0)
        .list("fields", ["email"])
        .change("email_verified", old_row.email_verified, new_row.email_verified)
        .detail("by", "mailed_token")
}
