//! Operations on one's own account: registration, change and reset of the password, proof and
//! change of the email.

mod change_email;
mod change_password;
mod join;
mod links;
mod register;
mod registrations;
mod request_reset;
mod request_verification;
mod reset_password;
mod verify_email;

use std::sync::Arc;

use crate::{
    config::TenantlessSignIn,
    db::Db,
    error::{Error, Result},
    limits::Limits,
    mail::MailQueue,
    passwords::{Hasher, PasswordPolicy},
    proto::v1::ErrorReason,
    sessions::SessionCache,
    sign_in::FailureTiming,
};

/// The operations on accounts, with their dependencies. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub db: Db,
    pub session_cache: SessionCache,
    pub hasher: Hasher,
    /// Delays the response to a wrong current password to a fixed time.
    pub failure_timing: Arc<FailureTiming>,
    pub limits: Limits,
    /// Queues mails with links, which a worker sends; `None` when the server sends no mail.
    pub mail_queue: Option<Arc<MailQueue>>,
    /// The server's policy, which a tenant's settings can only make stricter.
    pub password_policy: PasswordPolicy,
    /// Whether Register may create tenants.
    pub tenant_registration: bool,
    /// Setting: whether a reset request that names no tenant looks up only verified addresses,
    /// looks up all addresses, or is refused.
    pub tenantless_sign_in: TenantlessSignIn,
}

impl Accounts {
    /// The queue of mails.
    ///
    /// # Errors
    /// `MAIL_OFF` when the server sends no mail.
    fn mail_queue(&self) -> Result<&Arc<MailQueue>> {
        let mail_off = || Error::refused(ErrorReason::MailOff, "this server sends no mail");
        self.mail_queue.as_ref().ok_or_else(mail_off)
    }
}
