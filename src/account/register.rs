//! `Register`: creates a user, either with a new tenant or in a tenant that allows
//! self-registration.

use secrecy::SecretString;

use super::Accounts;
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::password,
    db::TenantTx,
    error::{Error, Result, reason_text},
    gate::NamedTenant,
    ids::{RoleId, TenantId, UserId},
    limits::{Owner, RateClass},
    passwords,
    proto::v1::{ErrorReason, RegisterRequest, RegisterResponse},
    roles,
    sign_in::named_tenant,
    tenants::{
        self, TenantRef,
        create::{self, NewTenant},
        settings::Known,
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
        let password = passwords::normalise(&message.password);
        if message.organization_name.is_empty() {
            let tenant = self.tenant_to_join(named, &message).await?;
            return self.join(&tenant, origin, &message, password).await;
        }
        if !matches!(named, NamedTenant::Absent) {
            let text = "must be empty when the metadata names a tenant to join";
            return Err(Error::field("organization_name", text));
        }
        if !self.tenant_registration {
            return Err(registration_closed());
        }
        let slug = create::slug_for(&message.organization_slug, &message.organization_name);
        let response = self.create_tenant(origin, &message, &slug, password).await;
        match response {
            Err(error) if error.reason() == ErrorReason::SlugTaken => {
                // If this is a retry of the request that took the slug, return the first response.
                self.first_response(&message, &slug).await?.ok_or(error)
            }
            other => other,
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
        let context = passwords::Context {
            email: &message.email,
            tenant_name: &message.organization_name,
            tenant_slug: slug,
        };
        self.password_policy.check("password", &password, &context)?;
        // The tenant does not exist yet. So all creations of tenants from one network count
        // against the same placeholder.
        let share = self.limits.placeholder_tenant_of_network(origin.ip);
        let hash = self.hasher.slot(Owner::new(share, origin.ip))?.hash(password).await?;

        let id = TenantId::new();
        let data_key = self.db.generate_data_key(id).await?;
        let mut tx = self.db.begin_unsealed(id).await?;
        let new = NewTenant {
            id,
            name: &message.organization_name,
            slug,
            settings: serde_json::Map::new(),
            password_policy: self.password_policy,
            data_key: &data_key,
        };
        let admin = create::create(&mut tx, new).await?;
        let row = tenants::store::get(&mut tx, id).await?;
        let event = Event::new(EventKind::TenantCreated).target(id.0);
        let event = tenants::audited::made(event, &row);
        audit::record(&mut tx, &Actor::anonymous(origin), event).await?;
        let key = key(id, message);
        self.add_user(tx, origin, message, &key, &hash, admin).await
    }

    /// The response of an earlier call with the same request id and content that created the
    /// tenant; `None` if another request created it.
    async fn first_response(
        &self,
        message: &RegisterRequest,
        slug: &str,
    ) -> Result<Option<RegisterResponse>> {
        let Some(tenant) = tenants::find(&self.db, slug).await? else { return Ok(None) };
        let mut tx = self.db.begin(tenant.id).await?;
        idempotency::find_response(&mut tx, &key(tenant.id, message)).await
    }

    async fn tenant_to_join(
        &self,
        named: &NamedTenant,
        message: &RegisterRequest,
    ) -> Result<TenantRef> {
        match named_tenant::tenant(&self.db, named, &message.organization_slug).await? {
            NamedTenant::Known(tenant) => Ok(tenant),
            NamedTenant::Unknown(_) => Err(Error::not_found()),
            NamedTenant::Absent => Err(Error::refused(
                ErrorReason::TenantRequired,
                "give organization_name to create a tenant, or name the tenant to join",
            )),
        }
    }

    /// Adds the user to a tenant that allows self-registration.
    async fn join(
        &self,
        tenant: &TenantRef,
        origin: &Origin,
        message: &RegisterRequest,
        password: SecretString,
    ) -> Result<RegisterResponse> {
        self.limits.tenant(RateClass::Registration, tenant.id).await?;
        let mut tx = self.db.begin(tenant.id).await?;
        let row = tenants::store::get(&mut tx, tenant.id).await?;
        let role = self_registration_role(&mut tx, &row).await?;
        // No connection is held while the password is hashed.
        drop(tx);
        if role.is_none() {
            return Err(self.record_refusal(tenant.id, origin, registration_closed()).await?);
        }
        let (policy, email) = (self.password_policy, &message.email);
        tenants::check_password(&row, policy, "password", &password, email)?;
        let owner = Owner::new(tenant.id, origin.ip);
        let hash = self.hasher.slot(owner)?.hash(password).await?;

        let mut tx = self.db.begin(tenant.id).await?;
        let key = key(tenant.id, message);
        if let Some(response) = idempotency::find_response(&mut tx, &key).await? {
            return Ok(response);
        }
        // Registration may have been closed while the password was hashed.
        let row = tenants::store::get(&mut tx, tenant.id).await?;
        let Some(role) = self_registration_role(&mut tx, &row).await? else {
            drop(tx);
            return Err(self.record_refusal(tenant.id, origin, registration_closed()).await?);
        };
        let response = self.add_user(tx, origin, message, &key, &hash, role).await;
        match response {
            Err(error) if error.reason() == ErrorReason::EmailTaken => {
                Err(self.record_refusal(tenant.id, origin, error).await?)
            }
            other => other,
        }
    }

    /// Records the refusal. Returns the error.
    async fn record_refusal(
        &self,
        tenant: TenantId,
        origin: &Origin,
        error: Error,
    ) -> Result<Error> {
        let reason = reason_text(error.reason());
        let event = Event::new(EventKind::RegistrationRefused).detail("reason", reason);
        audit::record_alone(&self.db, tenant, &Actor::anonymous(origin), event).await?;
        Ok(error)
    }

    async fn add_user(
        &self,
        mut tx: TenantTx,
        origin: &Origin,
        message: &RegisterRequest,
        key: &Key<'_>,
        hash: &str,
        role: RoleId,
    ) -> Result<RegisterResponse> {
        let (tenant, user) = (key.tenant, UserId::new());
        let (email, name) = (&message.email, &message.display_name);
        let row = users::store::insert(&mut tx, tenant, user, email, name).await?;
        password::set(&mut tx, tenant, user, hash).await?;
        let assignment = roles::assign_new(&mut tx, tenant, user, role).await?;
        let event = Event::new(EventKind::UserRegistered).target(user.0);
        let event = roles::audited::assigned(event, &assignment);
        let actor = Actor::anonymous(origin);
        let consistency_token = audit::record_with_token(&mut tx, &actor, event).await?;
        let tenant = tenants::store::get(&mut tx, tenant).await?;
        let response = RegisterResponse {
            user: Some(row.into()),
            tenant: Some(tenant.into()),
            consistency_token,
        };
        idempotency::store_response(&mut tx, key, user.0, &response).await?;
        tx.commit().await?;
        Ok(response)
    }
}

fn key(tenant: TenantId, message: &RegisterRequest) -> Key<'_> {
    Key {
        tenant,
        actor: None,
        method: "Register",
        request_id: &message.request_id,
        fingerprint: idempotency::fingerprint(message),
    }
}

/// The role of a user who joins the tenant; `None` when the tenant does not allow
/// self-registration now.
async fn self_registration_role(tx: &mut TenantTx, tenant: &TenantRow) -> Result<Option<RoleId>> {
    if !tenant.is_active() || !Known::read(tenant).self_registration {
        return Ok(None);
    }
    roles::store::self_registration_role(tx, tenant.tenant_id, roles::system::MEMBER).await
}

fn registration_closed() -> Error {
    Error::refused(ErrorReason::RegistrationClosed, "registration is closed here")
}
