//! `RequestPasswordReset`: queues a request for a mail with a link ([`crate::mail`]).
//!
//! Every request gets the same response in the same time, whether or not the tenant and the
//! account exist. The worker handles the request after the response.

use super::Accounts;
use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::RateClass,
    mail::{RequestedTenants, ResetRequest},
    proto::v1::{ErrorReason, RequestPasswordResetRequest},
    sign_in::named_tenant,
};

impl Accounts {
    /// Queues a request for a password reset. The request is committed when this function returns.
    ///
    /// # Errors
    /// `MAIL_OFF` when the server sends no mail; `RATE_LIMITED`; `OVERLOADED` when too many
    /// requests wait; `TENANT_REQUIRED` when a tenant must be named; UNAVAILABLE when Postgres is
    /// unavailable.
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
        let tenants = if matches!(named, NamedTenant::Absent) {
            let only_verified = named_tenant::only_verified(self.tenantless)?;
            RequestedTenants::ByEmail { only_verified }
        } else {
            self.limits.tenant(RateClass::PasswordReset, share).await?;
            RequestedTenants::One(named.known().map_or(TenantId::UNKNOWN, |tenant| tenant.id))
        };
        let request = ResetRequest::new(tenants, message.email, origin);
        mails.queue_reset_request(share, &request).await
    }
}
