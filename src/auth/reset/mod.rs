//! A new password for somebody who has forgotten the old one: by a mail to the
//! account's own address.
//!
//! Whoever asks gets the same answer, and as soon, whatever there is: the work begins
//! once the answer is on its way ([`Mails`]). The mail has a token ([`ResetToken`]),
//! which [`Auth::reset_password`] takes for a new password.

mod finish;
mod mails;
mod queue;
mod store;
mod token;

pub use mails::Mails;
pub use queue::MailSlot;

use super::{Auth, named};
use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::NamedTenant,
    ids::TenantId,
    limits::Class,
    proto::v1::{ErrorReason, RequestPasswordResetRequest},
};
use mails::{Meant, Request};
use token::ResetToken;

impl Auth {
    pub(super) async fn request_password_reset(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        message: RequestPasswordResetRequest,
    ) -> Result<()> {
        let Some(mails) = &self.mails else {
            return Err(Error::refused(ErrorReason::MailOff, "this server sends no mail"));
        };
        let named = named::tenant(&self.db, named, &message.organization_slug).await?;
        let share = named::share(&self.limits, &named, origin.ip);
        let meant = if matches!(named, NamedTenant::Absent) {
            Meant::ByEmail { only_verified: self.tenantless.only_verified()? }
        } else {
            self.limits.tenant(Class::PasswordReset, share).await?;
            Meant::One(named.known().map_or(TenantId::UNKNOWN, |tenant| tenant.id))
        };
        mails.begin(Request { meant, share, email: message.email, origin: origin.clone() })
    }
}
