//! The texts of mails with links. A text contains the tenant's slug, but neither the tenant's name
//! nor the name of a user. Anybody can register with any text as the name of a tenant or a user,
//! and could then send mails with this text to a stranger's address.

use super::{link::Purpose, outbox::Mail};
use crate::config::TOKEN_PLACEHOLDER;

/// The URLs of the pages that use the tokens of links, with [`TOKEN_PLACEHOLDER`] in them; `None`
/// when mails contain only the token.
#[derive(Clone)]
pub(super) struct Pages {
    /// The page that resets a password.
    pub reset: Option<String>,
    /// The page that calls `VerifyEmail`.
    pub verification: Option<String>,
}

impl Pages {
    /// The mail to this address with the token of a link.
    pub(super) fn mail(
        &self,
        purpose: Purpose,
        to: String,
        tenant_slug: &str,
        token: &str,
    ) -> Mail {
        let page = match purpose {
            Purpose::PasswordReset => &self.reset,
            Purpose::EmailVerification | Purpose::EmailChange | Purpose::Registration => {
                &self.verification
            }
        };
        let url_or_token = match page {
            Some(url) => url.replace(TOKEN_PLACEHOLDER, token),
            None => token.to_owned(),
        };
        let (subject, reason, invitation) = match purpose {
            Purpose::PasswordReset => (
                "A new password for",
                "Somebody has asked for a new password for your account at",
                "choose a new password here",
            ),
            Purpose::EmailVerification => (
                "Confirm your email for",
                "Somebody has asked to confirm this email for your account at",
                "confirm it here",
            ),
            Purpose::EmailChange => (
                "Confirm your new email for",
                "Somebody has asked to use this email for an account at",
                "confirm it here",
            ),
            Purpose::Registration => (
                "Confirm your registration at",
                "Somebody has registered with this email at",
                "confirm it here, with the password that you have chosen",
            ),
        };
        let minutes = purpose.lifetime().as_secs() / 60;
        Mail {
            to,
            subject: format!("{subject} {tenant_slug}"),
            text: format!(
                "{reason} {tenant_slug}.\n\nIf it was you, {invitation}:\n\n{url_or_token}\n\n\
                 This works once, and for {minutes} minutes. If it was not you, ignore this mail: \
                 nothing has changed.\n"
            ),
        }
    }
}

/// The mail to the owner of an address that somebody else wants to use. It has no link.
pub(super) fn address_taken(to: String, tenant_slug: &str) -> Mail {
    Mail {
        to,
        subject: format!("You already have an account at {tenant_slug}"),
        text: format!(
            "Somebody has tried to use this email for another account at {tenant_slug}. You already \
             have an account with this email there, so nothing has changed.\n\n\
             If it was you, sign in, or ask for a new password if you have forgotten yours. If it \
             was not you, ignore this mail.\n"
        ),
    }
}
