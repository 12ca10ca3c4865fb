//! `ResetPassword`: sets a new password with the link of a mail.

use super::Accounts;
use crate::{
    audit::{Actor, Event, EventKind, Origin},
    credentials::password,
    error::Result,
    gate::NamedTenant,
    limits::WorkOwner,
    mail::{self, Link, Purpose},
    passwords,
    proto::v1::{ErrorReason, ResetPasswordRequest},
    sessions, tenants, users,
};

impl Accounts {
    /// Sets a new password with the link of a mail. Returns the consistency token.
    ///
    /// # Errors
    /// `TOKEN_INVALID` when the link is not valid. When the new password breaks a rule:
    /// `INVALID_FIELDS` or `PASSWORD_TOO_COMMON`, and the link stays valid.
    pub async fn reset_password(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: ResetPasswordRequest,
    ) -> Result<String> {
        let purposes = &[Purpose::PasswordReset];
        let (link, charged_tenant) =
            self.admit_link(purposes, named, origin, message.token).await?;
        let link = &link;
        let mut tx = self.db.begin_in_share(charged_tenant, link.tenant).await?;
        if mail::find_link(&mut tx, link).await?.is_none() {
            drop(tx);
            return Err(self.record_link_refusal(link, origin).await?);
        }
        let row = users::store::get(&mut tx, link.tenant, link.user).await?;
        let tenant_row = tenants::store::get(&mut tx, link.tenant).await?;
        // No connection is held while a password is hashed.
        drop(tx);
        let new_password = passwords::normalise(&message.new_password);
        let policy = self.password_policy;
        tenants::check_password(&tenant_row, policy, "new_password", &new_password, &row.email)?;
        // Hashing counts against the tenant only if the link is valid, because anybody can make a
        // token with the id of any tenant.
        let owner = WorkOwner::new(link.tenant, origin.ip);
        let hash = self.hasher.take_slot(owner)?.hash(new_password).await?;
        match self.replace_password(link, origin, &hash).await? {
            Some(consistency_token) => Ok(consistency_token),
            None => Err(self.record_link_refusal(link, origin).await?),
        }
    }

    /// Sets the password; `None` if the link is no longer valid. Concurrent calls with the same
    /// link wait for the row lock of the user. The first call changes the password, which
    /// makes the link invalid for the other calls.
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
            row => row?,
        };
        if mail::find_link(&mut tx, link).await?.is_none() {
            return Ok(None);
        }
        password::set(&mut tx, tenant, user, hash).await?;
        let except_session = None;
        let (count, ended_sessions) =
            sessions::store::revoke_all(&mut tx, tenant, user, except_session, "password_reset")
                .await?;
        let event = Event::new(EventKind::PasswordReset).target(user.0);
        let mut event = event.detail("sessions_revoked", count);
        // A link is valid only while the user has the address that the link was mailed to. The
        // bearer of the link has received a mail at this address, so the address is verified.
        if !row.email_verified {
            row.email_verified = true;
            users::store::update(&mut tx, &row).await?;
            event = event.detail("email_verified", true);
        }
        self.session_cache
            .finish(tx, &Actor::anonymous(origin), event, ended_sessions)
            .await
            .map(Some)
    }
}
