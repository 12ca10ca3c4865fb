//! `ResetPassword`: sets a new password with the link of a mail.

use super::Accounts;
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::password,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::{Owner, RateClass},
    mail::{self, Link, Purpose},
    passwords,
    proto::v1::{ErrorReason, ResetPasswordRequest},
    sessions, tenants, users,
};

impl Accounts {
    /// Sets a new password with the link of a mail. Returns the consistency token.
    ///
    /// # Errors
    /// `TOKEN_INVALID` when the link is not valid; `INVALID_FIELDS` and others when the new
    /// password breaks a rule. The link stays valid after such an error.
    pub async fn reset_password(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: ResetPasswordRequest,
    ) -> Result<String> {
        let link = Link::read(Purpose::PasswordReset, &message.token.into());
        let link = &link.ok_or_else(token_invalid)?;
        if named.is_other_than(link.tenant) {
            return Err(token_invalid());
        }
        let (_, share) = self.tenant_and_share(link, origin).await?;
        self.limits.tenant(RateClass::PasswordReset, share).await?;
        let mut tx = self.db.begin_in_share(share, link.tenant).await?;
        if !mail::is_valid_link(&mut tx, link).await? {
            drop(tx);
            return Err(self.reset_failed(link, origin).await?);
        }
        let row = users::store::get(&mut tx, link.tenant, link.user).await?;
        let tenant_row = tenants::store::get(&mut tx, link.tenant).await?;
        // No connection is held while a password is hashed.
        drop(tx);
        let new = passwords::normalise(&message.new_password);
        let policy = self.password_policy;
        tenants::check_password(&tenant_row, policy, "new_password", &new, &row.email)?;
        // Hashing counts against the tenant only if the link is valid, because anybody can make a
        // token that names any tenant.
        let owner = Owner::new(link.tenant, origin.ip);
        let hash = self.hasher.slot(owner)?.hash(new).await?;
        match self.replace_password(link, origin, &hash).await? {
            Some(consistency_token) => Ok(consistency_token),
            None => Err(self.reset_failed(link, origin).await?),
        }
    }

    /// Sets the password if the link is still valid; `None` if it is not. The lock on the user
    /// orders concurrent calls with the same link: the first call changes the password, which
    /// invalidates the link.
    async fn replace_password(
        &self,
        link: &Link,
        origin: &Origin,
        hash: &str,
    ) -> Result<Option<String>> {
        let (tenant, user) = (link.tenant, link.user);
        let mut tx = self.db.begin(tenant).await?;
        let mut row = match users::store::lock(&mut tx, tenant, user).await {
            Err(error) if error.reason() == ErrorReason::NotFound => return Ok(None),
            locked => locked?,
        };
        if !mail::is_valid_link(&mut tx, link).await? {
            return Ok(None);
        }
        password::set(&mut tx, tenant, user, hash).await?;
        let (count, ended) =
            sessions::store::revoke_all(&mut tx, tenant, user, None, "password_reset").await?;
        let event = Event::new(EventKind::PasswordReset).target(user.0);
        let mut event = event.detail("sessions_revoked", count);
        // The token proves that the user receives mail at the present address: a change of the
        // address would have invalidated the link.
        if !row.email_verified {
            row.email_verified = true;
            users::store::update(&mut tx, &row).await?;
            event = event.detail("email_verified", true);
        }
        self.cache.finish(tx, &Actor::anonymous(origin), event, ended).await.map(Some)
    }

    /// The tenant of a link, and the tenant whose limits the call counts against. If the tenant of
    /// the link does not exist, the second is a placeholder for the caller's network.
    async fn tenant_and_share(&self, link: &Link, origin: &Origin) -> Result<(TenantId, TenantId)> {
        Ok(match self.db.cipher(link.tenant).await? {
            Some(_) => (link.tenant, link.tenant),
            None => (TenantId::UNKNOWN, self.limits.placeholder_tenant_of_network(origin.ip)),
        })
    }

    /// Records the failure in the tenant of the link, if that tenant exists. Returns the error.
    async fn reset_failed(&self, link: &Link, origin: &Origin) -> Result<Error> {
        let (tenant, share) = self.tenant_and_share(link, origin).await?;
        let event = Event::new(EventKind::PasswordResetFailed).target(link.user.0);
        let actor = Actor::anonymous(origin);
        audit::record_in_share(&self.db, share, tenant, &actor, event).await?;
        Ok(token_invalid())
    }
}

fn token_invalid() -> Error {
    Error::refused(ErrorReason::TokenInvalid, "the token is not in force")
}
