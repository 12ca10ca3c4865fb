//! `RequestEmailVerification`: queues a request for a mail with a link that verifies an email.
//!
//! As for a password reset (`request_reset.rs`), every request gets the same response in the same
//! time.

use super::Accounts;
use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::RateClass,
    mail::{LinkRequest, Purpose, RequestedTenants},
    proto::v1::{ErrorReason, RequestEmailVerificationRequest},
    sign_in::named_tenant,
};

impl Accounts {
    /// Queues a request for the verification of an email. The request is committed when this
    /// function returns.
    ///
    /// # Errors
    /// `MAIL_OFF` when the server sends no mail; `TENANT_REQUIRED` when the request names no
    /// tenant; `RATE_LIMITED` above the tenant's rate; `OVERLOADED` when too many requests wait;
    /// UNAVAILABLE when Postgres is unavailable.
    pub async fn request_email_verification(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: RequestEmailVerificationRequest,
    ) -> Result<()> {
        let mail_queue = self.mail_queue()?;
        let slug = &message.organization_slug;
        let named =
            named_tenant::resolve_tenant(&self.db, &self.limits, named, slug, origin.ip).await?;
        if matches!(named, NamedTenant::Absent) {
            return Err(Error::refused(
                ErrorReason::TenantRequired,
                "name the tenant in organization_slug, x-tenant-id or x-organization-slug",
            ));
        }
        let charged_tenant = named_tenant::charged_tenant(&self.limits, &named, origin.ip);
        self.limits.count_for_tenant(RateClass::PasswordReset, charged_tenant).await?;
        // A request for an unknown tenant is queued too, so that its response is the same.
        let tenant = named.known().map_or(TenantId::UNKNOWN, |tenant| tenant.id);
        let request = LinkRequest::new(RequestedTenants::One(tenant), message.email, origin);
        mail_queue.queue_request(Purpose::EmailVerification, charged_tenant, &request).await
    }
}
