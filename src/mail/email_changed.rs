//! The notice to the old address of a changed email.

use super::outbox::{EmailChanged, Mail};
use crate::{email, error::Result, ids::TenantId, limits::Limits};

const SUBJECT: &str = "The email of your account was changed";

impl EmailChanged {
    /// Counts the notice against the rate limits of the old address.
    ///
    /// # Errors
    /// `RATE_LIMITED` after too many notices to the address.
    pub(super) async fn count(&self, limits: &Limits, tenant: TenantId) -> Result<()> {
        // Notices have their own limit. Otherwise an attacker could use up the limit with reset
        // requests, which anybody can send.
        let account = format!("changed {}", email::key(&self.old_email));
        if self.was_verified {
            limits.mail_to_verified(tenant, &account).await
        } else {
            limits.mail(tenant, &account).await
        }
    }

    /// The mail. The mail contains no text that a tenant has chosen.
    pub(super) fn mail(&self) -> Mail {
        let text = format!(
            "The email of your account was changed, and is no longer this address.\n\n\
             If that is what you or your administrator wanted, there is nothing to do. If \
             not, tell your administrator at once: somebody else may be able to sign in as \
             you.\n\nYour account's id: {}\n",
            self.user
        );
        Mail { to: self.old_email.clone(), subject: SUBJECT.to_owned(), text }
    }
}
