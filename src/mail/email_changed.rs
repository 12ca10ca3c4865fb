//! The notice to the old address of a changed email.

use super::outbox::{EmailChanged, Mail};
use crate::{email, error::Result, ids::TenantId, limits::Limits};

const SUBJECT: &str = "The email of your account was changed";

impl EmailChanged {
    /// Counts the notice, and checks the rate of mails to the old address.
    ///
    /// # Errors
    /// `RATE_LIMITED` after too many notices to the address.
    pub(super) async fn check_rate(&self, limits: &Limits, tenant: TenantId) -> Result<()> {
        // Notices are counted separately from reset mails. Otherwise an attacker could use up the
        // limit with reset requests, which anybody can send.
        let counter_name = format!("changed {}", email::normalized(&self.old_email));
        if self.was_verified {
            // The owner has verified the address, so no limit across tenants is needed.
            limits.check_account_mail_rate(tenant, &counter_name).await
        } else {
            limits.check_account_and_address_mail_rate(tenant, &counter_name).await
        }
    }

    /// The mail with the notice. The mail contains no text that a tenant has chosen.
    pub(super) fn to_mail(&self) -> Mail {
        let text = format!(
            "The email of your account was changed, and is no longer this address.\n\n\
             If that is what you or your administrator wanted, there is nothing to do. If \
             not, tell your administrator immediately: somebody else may be able to sign in as \
             you.\n\nYour account's id: {}\n",
            self.user
        );
        Mail { to: self.old_email.clone(), subject: SUBJECT.to_owned(), text }
    }
}
