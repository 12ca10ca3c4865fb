//! A new password for somebody who has forgotten the old one: by a mail to the
//! account's own address.
//!
//! Whoever asks gets the same answer, and as soon, whatever there is: the work begins
//! once the answer is on its way ([`Resets`]). The mail has a token ([`ResetToken`]),
//! which [`Auth::reset_password`] takes for a new password.

mod finish;
mod mails;
mod store;
mod token;

pub use mails::Resets;

use super::Auth;
use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::Class,
    proto::v1::{ErrorReason, RequestPasswordResetRequest},
    users::email,
};
use mails::Request;
use token::ResetToken;

impl Auth {
    pub(super) async fn request_password_reset(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: RequestPasswordResetRequest,
    ) -> Result<()> {
        let Some(resets) = &self.resets else {
            return Err(Error::refused(ErrorReason::MailOff, "this server sends no mail"));
        };
        let email_key = email::key(&message.email);
        let slug = &message.organization_slug;
        let tenant = self.tenant_to_sign_in(named, slug, &email_key).await?;
        let tenant = tenant.map_or(TenantId::UNKNOWN, |tenant| tenant.id);
        self.limits.tenant(Class::PasswordReset, tenant).await?;
        resets.begin(Request { tenant, email: message.email, origin: origin.clone() })
    }
}
