//! The kinds of rows in the outbox, with the bounds and the lifetime of each kind.

use std::time::Duration;

use super::link::Purpose;

/// The kinds of rows in the outbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A call of `RequestPasswordReset` that is not handled yet.
    ResetRequest,
    /// A mail with a link that resets a password.
    PasswordReset,
    /// A call of `RequestEmailVerification` that is not handled yet.
    VerificationRequest,
    /// A mail with a link that verifies the email of a user.
    EmailVerification,
    /// A mail to the new address of a user, with a link that changes the email.
    EmailChange,
    /// A mail to the address of a registration, with a link that completes it.
    Registration,
    /// A notice of a changed email, to the old address.
    EmailChanged,
}

/// Maximum number of waiting rows of a kind: of one tenant, from one network, and in total. A tenant
/// or a network also has no more rows than can still be added. Further rows are refused.
pub(super) struct Bounds {
    pub per_tenant: i64,
    pub per_network: i64,
    pub total: i64,
}

/// Bounds of requests. These bounds are lower than the bounds of mails, because anybody can send
/// requests.
const MAX_REQUESTS: Bounds = Bounds { per_tenant: 125, per_network: 125, total: 1_000 };

/// Bounds of mails. These rows have no network.
const MAX_MAILS: Bounds = Bounds { per_tenant: 1_000, per_network: 1_000, total: 10_000 };

impl Kind {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::ResetRequest => "reset_request",
            Self::PasswordReset => "password_reset",
            Self::VerificationRequest => "verification_request",
            Self::EmailVerification => "email_verification",
            Self::EmailChange => "email_change",
            Self::Registration => "registration",
            Self::EmailChanged => "email_changed",
        }
    }

    pub(super) const fn bounds(self) -> Bounds {
        match self {
            Self::ResetRequest | Self::VerificationRequest | Self::Registration => MAX_REQUESTS,
            Self::PasswordReset
            | Self::EmailVerification
            | Self::EmailChange
            | Self::EmailChanged => MAX_MAILS,
        }
    }

    /// Time after which the row is deleted, even if no mail was sent. A mail is useless when its
    /// link has expired.
    pub(super) const fn lifetime(self) -> Duration {
        match self {
            Self::ResetRequest | Self::PasswordReset => Purpose::PasswordReset.lifetime(),
            Self::VerificationRequest | Self::EmailVerification => {
                Purpose::EmailVerification.lifetime()
            }
            Self::EmailChange => Purpose::EmailChange.lifetime(),
            Self::Registration => Purpose::Registration.lifetime(),
            Self::EmailChanged => Duration::from_hours(24),
        }
    }
}
