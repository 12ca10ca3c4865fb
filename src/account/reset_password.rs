//! `ResetPassword`: a token from a mail for a new password.

use super::Accounts;
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::password,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::{Owner, RateClass},
    mail::{ResetToken, links},
    passwords,
    proto::v1::{ErrorReason, ResetPasswordRequest},
    sessions, tenants, users,
};

impl Accounts {
    /// The change's consistency token.
    pub async fn reset_password(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: ResetPasswordRequest,
    ) -> Result<String> {
        let token = ResetToken::read(&message.token.into()).ok_or_else(token_invalid)?;
        let elsewhere = match named {
            NamedTenant::Absent => false,
            NamedTenant::Unknown(_) => true,
            NamedTenant::Known(tenant) => tenant.id != token.tenant,
        };
        if elsewhere {
            return Err(token_invalid());
        }
        let (_, share) = self.tenant_and_share(&token, origin).await?;
        self.limits.tenant(RateClass::PasswordReset, share).await?;
        let mut tx = self.db.begin_in_share(share, token.tenant).await?;
        if !links::is_good(&mut tx, &token).await? {
            drop(tx);
            return Err(self.reset_failed(&token, origin).await?);
        }
        let row = users::store::get(&mut tx, token.tenant, token.user).await?;
        let tenant_row = tenants::store::get(&mut tx, token.tenant).await?;
        // No connection is held while a password is hashed.
        drop(tx);
        let new = passwords::normalise(&message.new_password);
        let policy = self.password_policy;
        tenants::check_password(&tenant_row, policy, "new_password", &new, &row.email)?;
        // Not before the token is good: anybody may write a tenant into one.
        let owner = Owner::new(token.tenant, origin.ip);
        let hash = self.hasher.slot(owner)?.hash(new).await?;
        match self.replace_password(&token, origin, &hash).await? {
            Some(consistency_token) => Ok(consistency_token),
            None => Err(self.reset_failed(&token, origin).await?),
        }
    }

    /// Sets the password if the token is good still. The lock on the user orders this
    /// against others that have the same token: the first one's change of the password
    /// ends the token.
    async fn replace_password(
        &self,
        token: &ResetToken,
        origin: &Origin,
        hash: &str,
    ) -> Result<Option<String>> {
        let (tenant, user) = (token.tenant, token.user);
        let mut tx = self.db.begin(tenant).await?;
        let mut row = match users::store::lock(&mut tx, tenant, user).await {
            Err(error) if error.reason() == ErrorReason::NotFound => return Ok(None),
            locked => locked?,
        };
        if !links::is_good(&mut tx, token).await? {
            return Ok(None);
        }
        password::set(&mut tx, tenant, user, hash).await?;
        let (count, ended) =
            sessions::store::revoke_all(&mut tx, tenant, user, None, "password_reset").await?;
        let event = Event::new(EventKind::PasswordReset).target(user.0);
        let mut event = event.detail("sessions_revoked", count);
        // The token was in a mail to the address that the user has: an address that
        // changes ends the token.
        if !row.email_verified {
            row.email_verified = true;
            users::store::update(&mut tx, &row).await?;
            event = event.detail("email_verified", true);
        }
        self.cache.finish(tx, &Actor::anonymous(origin), event, ended).await.map(Some)
    }

    /// The tenant that a token names, and whose share its work takes: its own, or, where there
    /// is no such tenant, the stand-in's of the network.
    async fn tenant_and_share(
        &self,
        token: &ResetToken,
        origin: &Origin,
    ) -> Result<(TenantId, TenantId)> {
        Ok(match self.db.cipher(token.tenant).await? {
            Some(_) => (token.tenant, token.tenant),
            None => (TenantId::UNKNOWN, self.limits.placeholder_tenant_of_network(origin.ip)),
        })
    }

    /// The refusal, once it is recorded: where the token says, if there is such a place.
    async fn reset_failed(&self, token: &ResetToken, origin: &Origin) -> Result<Error> {
        let (tenant, share) = self.tenant_and_share(token, origin).await?;
        let event = Event::new(EventKind::PasswordResetFailed).target(token.user.0);
        let actor = Actor::anonymous(origin);
        audit::record_in_share(&self.db, share, tenant, &actor, event).await?;
        Ok(token_invalid())
    }
}

fn token_invalid() -> Error {
    Error::refused(ErrorReason::TokenInvalid, "the token is not in force")
}
