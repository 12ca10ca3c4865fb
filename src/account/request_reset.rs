//! A new password for somebody who has forgotten the old one: by a mail to the
//! account's own address.
//!
//! Whoever asks gets the same answer, and as soon, whatever there is: the work begins
//! once the answer is on its way ([`crate::mail`]). The mail has a token ([`crate::mail::ResetToken`]),
//! which [`Accounts::reset_password`] takes for a new password.

use super::Accounts;
use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::RateClass,
    mail::{Meant, Request},
    proto::v1::{ErrorReason, RequestPasswordResetRequest},
    sign_in::named_tenant,
};

impl Accounts {
    pub async fn request_password_reset(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: RequestPasswordResetRequest,
    ) -> Result<()> {
        let Some(mails) = &self.mails else {
            return Err(Error::refused(ErrorReason::MailOff, "this server sends no mail"));
        };
        let named = named_tenant::tenant(&self.db, named, &message.organization_slug).await?;
        let share = named_tenant::share(&self.limits, &named, origin.ip);
        let meant = if matches!(named, NamedTenant::Absent) {
            Meant::ByEmail { only_verified: named_tenant::only_verified(self.tenantless)? }
        } else {
            self.limits.tenant(RateClass::PasswordReset, share).await?;
            Meant::One(named.known().map_or(TenantId::UNKNOWN, |tenant| tenant.id))
        };
        mails.begin(Request { meant, share, email: message.email, origin: origin.clone() })
    }
}
