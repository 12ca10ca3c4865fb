//! `RequestPasswordReset`: queues a request for a mail with a link to reset the password
//! ([`crate::mail`]).
//!
//! Every request gets the same response in the same time, whether or not the tenant and the
//! account exist. The worker handles the request after the response.

use super::Accounts;
use crate::{
    audit::Origin,
    error::Result,
    gate::NamedTenant,
    ids::TenantId,
    limits::RateClass,
    mail::{LinkRequest, Purpose, RequestedTenants},
    proto::v1::RequestPasswordResetRequest,
    sign_in::named_tenant,
};

impl Accounts {
    /// Queues a request for a password reset. The request is committed when this function returns.
    ///
    /// # Errors
    /// `MAIL_OFF` when the server sends no mail; `RATE_LIMITED` above the tenant's rate;
    /// `OVERLOADED` when too many requests wait; `TENANT_REQUIRED` when the setting requires that
    /// the request names a tenant; UNAVAILABLE when Postgres is unavailable.
    pub async fn request_password_reset(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: RequestPasswordResetRequest,
    ) -> Result<()> {
        let mail_queue = self.mail_queue()?;
        let slug = &message.organization_slug;
        let named =
            named_tenant::resolve_tenant(&self.db, &self.limits, named, slug, origin.ip).await?;
        let charged_tenant = named_tenant::charged_tenant(&self.limits, &named, origin.ip);
        let requested_tenants = if matches!(named, NamedTenant::Absent) {
            let only_verified_emails = named_tenant::only_verified_emails(self.tenantless_sign_in)?;
            RequestedTenants::ByEmail { only_verified_emails }
        } else {
            self.limits.count_for_tenant(RateClass::PasswordReset, charged_tenant).await?;
            // A request for an unknown tenant is queued too, so that its response is the same.
            RequestedTenants::One(named.known().map_or(TenantId::UNKNOWN, |tenant| tenant.id))
        };
        let request = LinkRequest::new(requested_tenants, message.email, origin);
        mail_queue.queue_request(Purpose::PasswordReset, charged_tenant, &request).await
    }
}
