//! `Register`: creates a user, either with a new tenant or in a tenant that allows
//! self-registration.

use secrecy::SecretString;

use super::Accounts;
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::password,
    db::TenantTx,
    email,
    error::{Error, Result, reason_text},
    gate::NamedTenant,
    ids::{RoleId, SubjectId, TenantId},
    limits::{RateClass, WorkOwner},
    passwords,
    proto::v1::{ErrorReason, RegisterRequest, RegisterResponse},
    roles,
    sign_in::named_tenant,
    tenants::{
        self, TenantRef,
        create::{self, NewTenant},
        settings::KnownSettings,
        store::TenantRow,
    },
    users,
};

impl Accounts {
    pub async fn register(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: RegisterRequest,
    ) -> Result<RegisterResponse> {
        email::check("email", &message.email)?;
        let password = passwords::normalise(&message.password);
        if message.organization_name.is_empty() {
            let tenant = self.tenant_to_join(named, origin, &message).await?;
            return self.join_tenant(&tenant, origin, &message, password).await;
        }
        if !matches!(named, NamedTenant::Absent) {
            let text = "must be empty when the metadata names a tenant to join";
            return Err(Error::field("organization_name", text));
        }
        if !self.tenant_registration {
            return Err(registration_closed());
        }
        let slug = create::slug_for(&message.organization_slug, &message.organization_name);
        let result = self.create_tenant(origin, &message, &slug, password).await;
        match result {
            Err(error) if error.reason() == ErrorReason::SlugTaken => {
                // If this is a retry of the request that took the slug, return the first response.
                self.first_response(origin, &message, &slug).await?.ok_or(error)
            }
            result => result,
        }
    }

    /// Creates the tenant and its first administrator in one transaction.
    async fn create_tenant(
        &self,
        origin: &Origin,
        message: &RegisterRequest,
        slug: &str,
        password: SecretString,
    ) -> Result<RegisterResponse> {
        let forbidden_words = passwords::ForbiddenWords {
            email: &message.email,
            tenant_name: &message.organization_name,
            tenant_slug: slug,
        };
        self.password_policy.check("password", &password, &forbidden_words)?;
        // The tenant does not exist yet. So all requests of one network that create tenants count
        // against the same placeholder tenant.
        let charged_tenant = self.limits.placeholder_tenant_of_network(origin.ip);
        let hash = self
            .hasher
            .take_slot(WorkOwner::new(charged_tenant, origin.ip))?
            .hash(password)
            .await?;

        let id = TenantId::new();
        let data_key = self.db.generate_data_key(id).await?;
        let mut tx = self.db.begin_without_cipher_in_share(charged_tenant, id).await?;
        let new_tenant = NewTenant {
            id,
            name: &message.organization_name,
            slug,
            settings: serde_json::Map::new(),
            password_policy: self.password_policy,
            data_key: &data_key,
        };
        let admin_role = create::create(&mut tx, new_tenant).await?;
        let row = tenants::store::get(&mut tx, id).await?;
        let event = Event::new(EventKind::TenantCreated).target(id.0);
        let event = tenants::audited::with_tenant(event, &row);
        audit::record(&mut tx, &Actor::anonymous(origin), event).await?;
        let key = idempotency_key(id, message);
        self.add_user(tx, origin, message, &key, &hash, admin_role).await
    }

    /// Finds the response of an earlier call with the same request id and content, which created
    /// the tenant; `None` if a different request created the tenant.
    async fn first_response(
        &self,
        origin: &Origin,
        message: &RegisterRequest,
        slug: &str,
    ) -> Result<Option<RegisterResponse>> {
        let charged_tenant = self.limits.placeholder_tenant_of_network(origin.ip);
        let tenant = tenants::find(&self.db, charged_tenant, slug).await?;
        let Some(tenant) = tenant else { return Ok(None) };
        let mut tx = self.db.begin_in_share(charged_tenant, tenant.id).await?;
        idempotency::find_response(&mut tx, &idempotency_key(tenant.id, message)).await
    }

    async fn tenant_to_join(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: &RegisterRequest,
    ) -> Result<TenantRef> {
        let slug = &message.organization_slug;
        let (db, limits) = (&self.db, &self.limits);
        match named_tenant::resolve_tenant(db, limits, named, slug, origin.ip).await? {
            NamedTenant::Known(tenant) => Ok(tenant),
            NamedTenant::Unknown(_) => Err(Error::not_found()),
            NamedTenant::Absent => Err(Error::refused(
                ErrorReason::TenantRequired,
                "set organization_name to create a tenant, or organization_slug to join a tenant",
            )),
        }
    }

    /// Adds the user to a tenant that allows self-registration.
    async fn join_tenant(
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
        let result = self.add_user(tx, origin, message, &key, &hash, role).await;
        match result {
            Err(error) if error.reason() == ErrorReason::EmailTaken => {
                Err(self.recorded_refusal(tenant.id, origin, error).await?)
            }
            result => result,
        }
    }

    /// Records the refusal in the audit trail of the tenant. Returns the refusal.
    async fn recorded_refusal(
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

    async fn add_user(
        &self,
        mut tx: TenantTx,
        origin: &Origin,
        message: &RegisterRequest,
        key: &Key<'_>,
        password_hash: &str,
        role: RoleId,
    ) -> Result<RegisterResponse> {
        let (tenant, user) = (key.tenant, SubjectId::new());
        let (email, name) = (&message.email, &message.display_name);
        let user_row = users::store::insert(&mut tx, tenant, user, email, name).await?;
        password::set(&mut tx, tenant, user, password_hash).await?;
        let assignment = roles::assign_new(&mut tx, tenant, user, role).await?;
        let event = Event::new(EventKind::UserRegistered).target(user.0);
        let event = roles::audited::with_assignment(event, &assignment);
        let actor = Actor::anonymous(origin);
        let consistency_token = audit::record_with_token(&mut tx, &actor, event).await?;
        let tenant_row = tenants::store::get(&mut tx, tenant).await?;
        let response = RegisterResponse {
            user: Some(user_row.into()),
            tenant: Some(tenant_row.into()),
            consistency_token,
        };
        idempotency::store_response(&mut tx, key, user.0, &response).await?;
        tx.commit().await?;
        Ok(response)
    }
}

fn idempotency_key(tenant: TenantId, message: &RegisterRequest) -> Key<'_> {
    Key {
        tenant,
        actor: None,
        method: "Register",
        request_id: &message.request_id,
        fingerprint: idempotency::fingerprint(message),
    }
}

/// The role for users who join the tenant; `None` when the tenant does not allow self-registration
/// now.
async fn self_registration_role(tx: &mut TenantTx, tenant: &TenantRow) -> Result<Option<RoleId>> {
    if !tenant.is_active() || !KnownSettings::read(tenant).self_registration {
        return Ok(None);
    }
    roles::store::self_registration_role(tx, tenant.tenant_id, roles::system::MEMBER).await
}

fn registration_closed() -> Error {
    Error::refused(ErrorReason::RegistrationClosed, "registration is closed")
}
