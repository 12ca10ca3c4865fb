//! `Register`: creates a user with a new tenant. The registration in an existing tenant is in
//! `join.rs`.

use secrecy::SecretString;

use super::Accounts;
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::password,
    db::TenantTx,
    email,
    error::{Error, Result},
    gate::NamedTenant,
    ids::{RoleId, SubjectId, TenantId},
    limits::WorkOwner,
    passwords,
    proto::v1::{ErrorReason, RegisterRequest, RegisterResponse},
    roles,
    sign_in::named_tenant,
    tenants::{
        self, TenantRef,
        create::{self, NewTenant},
        store::TenantRow,
    },
    users::{self, store::UserRow},
};

impl Accounts {
    /// Registers a user: with a new tenant if the request has an `organization_name`, otherwise in
    /// an existing tenant.
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

    /// Finds the existing tenant that the metadata or the request names.
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

    /// Adds a user with a role, records the event, stores the response for retries and commits.
    pub(super) async fn add_user(
        &self,
        mut tx: TenantTx,
        origin: &Origin,
        message: &RegisterRequest,
        key: &Key<'_>,
        password_hash: &str,
        role: RoleId,
    ) -> Result<RegisterResponse> {
        let user = SubjectId::new();
        let new_user = NewUser {
            id: user,
            email: &message.email,
            display_name: &message.display_name,
            password_hash,
            email_verified: false,
            role,
        };
        let (user_row, tenant_row, consistency_token) =
            add_user_with_role(&mut tx, key.tenant, origin, new_user).await?;
        let response = RegisterResponse {
            user: Some(user_row.into()),
            tenant: Some(tenant_row.into()),
            consistency_token,
            verification_sent: false,
        };
        idempotency::store_response(&mut tx, key, user.0, &response).await?;
        tx.commit().await?;
        Ok(response)
    }
}

/// A user who registers.
pub(super) struct NewUser<'a> {
    pub id: SubjectId,
    pub email: &'a str,
    pub display_name: &'a str,
    pub password_hash: &'a str,
    /// Whether the user has proved that the email is their own.
    pub email_verified: bool,
    pub role: RoleId,
}

/// Inserts a user with a password and a role, and records the event. Returns the rows of the user
/// and of the tenant, and the consistency token.
///
/// # Errors
/// `EMAIL_TAKEN` when the tenant has a user with the email.
pub(super) async fn add_user_with_role(
    tx: &mut TenantTx,
    tenant: TenantId,
    origin: &Origin,
    new_user: NewUser<'_>,
) -> Result<(UserRow, TenantRow, String)> {
    let NewUser { id, email, display_name, password_hash, email_verified, role } = new_user;
    let mut user_row = users::store::insert(tx, tenant, id, email, display_name).await?;
    password::set(tx, tenant, id, password_hash).await?;
    let assignment = roles::assign_new(tx, tenant, id, role).await?;
    let mut event = Event::new(EventKind::UserRegistered).target(id.0);
    if email_verified {
        user_row.email_verified = true;
        user_row = users::store::update(tx, &user_row).await?;
        event = event.detail("email_verified", true);
    }
    let event = roles::audited::with_assignment(event, &assignment);
    let consistency_token = audit::record_with_token(tx, &Actor::anonymous(origin), event).await?;
    let tenant_row = tenants::store::get(tx, tenant).await?;
    Ok((user_row, tenant_row, consistency_token))
}

pub(super) fn idempotency_key(tenant: TenantId, message: &RegisterRequest) -> Key<'_> {
    Key {
        tenant,
        actor: None,
        method: "Register",
        request_id: &message.request_id,
        fingerprint: idempotency::fingerprint(message),
    }
}

pub(super) fn registration_closed() -> Error {
    Error::refused(ErrorReason::RegistrationClosed, "registration is closed")
}
