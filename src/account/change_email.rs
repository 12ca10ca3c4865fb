//! `ChangeEmail`: verifies the current password, and mails a link to the new email. The email changes
//! when the link is used (`verify_email.rs`). So a change needs two proofs: the password of the account,
//! and access to the new address.

use std::sync::Arc;

use secrecy::ExposeSecret;

use super::Accounts;
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Event, EventKind},
    credentials::{
        current_password::{self, Attempt},
        password,
    },
    db::TenantTx,
    email,
    error::{Error, Result},
    gate::Caller,
    limits::WorkOwner,
    mail::{self, AddressProof, Link, Purpose},
    passwords::PresentedPassword,
    proto::v1::{ChangeEmailRequest, ChangeEmailResponse, ErrorReason},
    sessions,
    sign_in::{SignInAttempt, attempt::run_to_end},
    tenants, users,
};

/// The audit event of a change that is refused because of a wrong password.
const FAILURE_EVENT: EventKind = EventKind::EmailChangeFailed;

impl Accounts {
    /// Mails a link to the new email of the caller. The steps are the same whether or not another user
    /// of the tenant has this email.
    ///
    /// # Errors
    /// `MAIL_OFF` when the server sends no mail; `INVALID_CREDENTIALS` when the password is wrong;
    /// `OVERLOADED` when too many mails wait; UNAVAILABLE when Postgres is unavailable.
    pub async fn change_email(
        &self,
        sign_in: &Arc<SignInAttempt>,
        caller: &Caller,
        message: ChangeEmailRequest,
    ) -> Result<ChangeEmailResponse> {
        self.mail_queue()?;
        email::check("new_email", &message.new_email)?;
        let (accounts, sign_in, caller) = (self.clone(), sign_in.clone(), caller.clone());
        let change =
            |_| async move { Box::pin(accounts.verify_and_mail(&sign_in, &caller, message)).await };
        run_to_end(change).await
    }

    async fn verify_and_mail(
        &self,
        sign_in: &SignInAttempt,
        caller: &Caller,
        message: ChangeEmailRequest,
    ) -> Result<ChangeEmailResponse> {
        let (tenant, user) = (caller.own_tenant(), caller.user());
        let owner = WorkOwner::new(tenant, caller.origin().ip);
        let password = &PresentedPassword::new(&message.current_password);
        sign_in.reserve(owner, password, 1)?;
        let mut slot = self.hasher.take_slot(owner)?;
        let mut tx = self.db.begin(tenant).await?;
        let row = users::store::get(&mut tx, tenant, user).await?;
        let stored_hash = password::get(&mut tx, tenant, user).await?;
        // No connection is held while passwords are hashed.
        drop(tx);
        let attempt = Attempt {
            caller,
            normalized_email: &email::normalized(&row.email),
            password,
            stored_hash,
            failure_event: FAILURE_EVENT,
        };
        let verified_hash =
            current_password::verify(&self.db, &self.limits, &mut slot, attempt).await?;
        drop(slot);
        let mut tx = self.db.begin(tenant).await?;
        // The row lock excludes a concurrent transaction that disables the user or changes its email.
        users::store::lock(&mut tx, tenant, user).await?;
        if !sessions::store::lock_live(&mut tx, tenant, user, caller.session()).await? {
            let text = "the access token is not in force";
            return Err(Error::refused(ErrorReason::TokenInvalid, text));
        }
        if password::get(&mut tx, tenant, user).await? != Some(verified_hash) {
            drop(tx);
            return Err(current_password::record_refusal(&self.db, caller, FAILURE_EVENT).await?);
        }
        let key = Key {
            tenant,
            actor: Some(user),
            method: "ChangeEmail",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };
        let response = idempotency::once(tx, &key, async |tx| {
            self.queue_change(tx, caller, &message.new_email).await?;
            Ok((user.0, ChangeEmailResponse {}))
        })
        .await?;
        self.mail_queue()?.send_queued();
        Ok(response)
    }

    /// Stores the link, queues the mail and records the request. The link replaces an earlier one.
    async fn queue_change(
        &self,
        tx: &mut TenantTx,
        caller: &Caller,
        new_email: &str,
    ) -> Result<()> {
        let (tenant, user) = (caller.own_tenant(), caller.user());
        let (link, token) = Link::new(Purpose::EmailChange, tenant, user)?;
        mail::set_link(tx, &link, new_email).await?;
        let proof = AddressProof {
            user,
            email: new_email.to_owned(),
            tenant_slug: tenants::store::get(tx, tenant).await?.slug,
            token: token.expose_secret().to_owned(),
        };
        let purpose = Purpose::EmailChange;
        self.mail_queue()?.queue_address_proof(tx, tenant, purpose, &proof, None).await?;
        let event = Event::new(EventKind::EmailChangeRequested).target(user.0);
        audit::record(tx, &caller.actor(), event).await
    }
}
