//! The registration in an existing tenant that allows it. If the server sends mail, the user is created
//! only when the mailed link is used (`verify_email.rs`), and the response does not show whether the
//! email is taken.

use secrecy::{ExposeSecret, SecretString};

use super::{
    Accounts,
    register::{idempotency_key, registration_closed},
    registrations::{self, Registration},
};
use crate::{
    api::idempotency,
    audit::{self, Actor, Event, EventKind, Origin},
    db::TenantTx,
    error::{Error, Result, reason_text},
    ids::{RoleId, SubjectId, TenantId},
    limits::{RateClass, WorkOwner},
    mail::{AddressProof, Link, MailQueue, Purpose},
    proto::v1::{ErrorReason, RegisterRequest, RegisterResponse},
    roles,
    tenants::{self, TenantRef, settings::KnownSettings, store::TenantRow},
};

impl Accounts {
    /// Adds the user to a tenant that allows self-registration.
    pub(super) async fn join_tenant(
        &self,
        tenant: &TenantRef,
        origin: &Origin,
        message: &RegisterRequest,
        password: SecretString,
    ) -> Result<RegisterResponse> {
        self.limits.count_for_tenant(RateClass::Registration, tenant.id).await?;
        let mut tx = self.db.begin(tenant.id).await?;
        let row = tenants::store::get(&mut tx, tenant.id).await?;
        let role = self_registration_role(&mut tx, &row).await?;
        // No connection is held while the password is hashed.
        drop(tx);
        if role.is_none() {
            return Err(self.recorded_refusal(tenant.id, origin, registration_closed()).await?);
        }
        let (policy, email) = (self.password_policy, &message.email);
        tenants::check_password(&row, policy, "password", &password, email)?;
        let owner = WorkOwner::new(tenant.id, origin.ip);
        let hash = self.hasher.take_slot(owner)?.hash(password).await?;

        let mut tx = self.db.begin(tenant.id).await?;
        let key = idempotency_key(tenant.id, message);
        if let Some(response) = idempotency::find_response(&mut tx, &key).await? {
            return Ok(response);
        }
        // Registration may have been closed while the password was hashed.
        let row = tenants::store::get(&mut tx, tenant.id).await?;
        let Some(role) = self_registration_role(&mut tx, &row).await? else {
            drop(tx);
            return Err(self.recorded_refusal(tenant.id, origin, registration_closed()).await?);
        };
        if let Some(mail_queue) = &self.mail_queue {
            return self.queue_registration(mail_queue, tx, &row, origin, message, hash).await;
        }
        // Without mails nobody can prove an email, so the response shows whether the email is taken.
        let result = self.add_user(tx, origin, message, &key, &hash, role).await;
        match result {
            Err(error) if error.reason() == ErrorReason::EmailTaken => {
                Err(self.recorded_refusal(tenant.id, origin, error).await?)
            }
            result => result,
        }
    }

    /// Stores the registration and queues the mail to its email. The steps are the same whether or not
    /// the tenant has a user with the email.
    async fn queue_registration(
        &self,
        mail_queue: &MailQueue,
        mut tx: TenantTx,
        tenant: &TenantRow,
        origin: &Origin,
        message: &RegisterRequest,
        password_hash: String,
    ) -> Result<RegisterResponse> {
        let (tenant_id, user) = (tenant.tenant_id, SubjectId::new());
        let (link, token) = Link::new(Purpose::Registration, tenant_id, user)?;
        let registration = Registration {
            email: message.email.clone(),
            display_name: message.display_name.clone(),
            password_hash,
        };
        registrations::add(&mut tx, &link, &registration).await?;
        let proof = AddressProof {
            user,
            email: registration.email,
            tenant_slug: tenant.slug.clone(),
            token: token.expose_secret().to_owned(),
        };
        let purpose = Purpose::Registration;
        mail_queue.queue_address_proof(&mut tx, tenant_id, purpose, &proof, origin.ip).await?;
        let event = Event::new(EventKind::RegistrationRequested);
        let consistency_token =
            audit::record_with_token(&mut tx, &Actor::anonymous(origin), event).await?;
        let response = RegisterResponse {
            consistency_token,
            verification_sent: true,
            ..RegisterResponse::default()
        };
        let key = idempotency_key(tenant_id, message);
        idempotency::store_response(&mut tx, &key, user.0, &response).await?;
        tx.commit().await?;
        mail_queue.send_queued();
        Ok(response)
    }

    /// Records the refusal in the audit trail of the tenant. Returns the refusal.
    pub(super) async fn recorded_refusal(
        &self,
        tenant: TenantId,
        origin: &Origin,
        error: Error,
    ) -> Result<Error> {
        let reason = reason_text(error.reason());
        let event = Event::new(EventKind::RegistrationRefused).detail("reason", reason);
        audit::record_in_own_transaction(&self.db, tenant, &Actor::anonymous(origin), event)
            .await?;
        Ok(error)
    }
}

/// The role for users who join the tenant; `None` when the tenant does not allow self-registration
/// now.
pub(super) async fn self_registration_role(
    tx: &mut TenantTx,
    tenant: &TenantRow,
) -> Result<Option<RoleId>> {
    if !tenant.is_active() || !KnownSettings::read(tenant).self_registration {
        return Ok(None);
    }
    roles::store::self_registration_role(tx, tenant.tenant_id, roles::system::MEMBER).await
}
