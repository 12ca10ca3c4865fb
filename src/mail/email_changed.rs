//! The mail to the address that an account had before.

use anyhow::Context;

use super::mailer::Mailer;
use crate::{
    audit::CorrelationId,
    email,
    ids::{TenantId, UserId},
    limits::Limits,
};

const SUBJECT: &str = "The email of your account was changed";

/// A user's email was changed.
pub struct EmailChanged {
    /// The user's tenant.
    pub tenant: TenantId,
    /// The user.
    pub user: UserId,
    /// The email before.
    pub old_email: String,
    /// Whether the user had proved it.
    pub was_verified: bool,
    /// The request that changed it.
    pub correlation_id: CorrelationId,
}

impl EmailChanged {
    /// Mails the old address. What goes wrong is logged: the change stands.
    pub(super) async fn tell(self, limits: &Limits, mailer: &Mailer) {
        let Self { tenant, user, correlation_id, .. } = &self;
        // Not counted with the mails that anybody may ask for: they could use up what
        // this one needs.
        let account = format!("changed {}", email::key(&self.old_email));
        let counted = if self.was_verified {
            limits.mail_to_verified(*tenant, &account).await
        } else {
            limits.mail(*tenant, &account).await
        };
        if counted.is_err() {
            tracing::info!(%tenant, %user, "an address has got enough mails of a changed email");
            return;
        }
        if let Err(error) = self.send(mailer).await {
            let error = format!("{error:#}");
            tracing::error!(
                error, %tenant, %user, request_id = %correlation_id,
                "a mail of a changed email was not sent"
            );
        }
    }

    async fn send(&self, mailer: &Mailer) -> anyhow::Result<()> {
        let to = self.old_email.parse().ok().context("the old email takes no mail")?;
        mailer.send(to, SUBJECT, self.text()).await
    }

    /// It has no text that a tenant chose.
    fn text(&self) -> String {
        format!(
            "The email of your account was changed, and is no longer this address.\n\n\
             If that is what you or your administrator wanted, there is nothing to do. If \
             not, tell your administrator at once: somebody else may be able to sign in as \
             you.\n\nYour account's id: {}\n",
            self.user
        )
    }
}
