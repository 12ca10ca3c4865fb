//! Operations on one's own account: registration, change and reset of the password.

mod change_password;
mod register;
mod request_reset;
mod reset_password;

use std::sync::Arc;

use crate::{
    config::TenantlessSignIn,
    db::Db,
    limits::Limits,
    mail::MailQueue,
    passwords::{Hasher, PasswordPolicy},
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
    /// Queues password reset mails, which a worker sends; `None` when the server sends no mail.
    pub mail_queue: Option<Arc<MailQueue>>,
    /// The server's policy, which a tenant's settings can only make stricter.
    pub password_policy: PasswordPolicy,
    /// Whether Register may create tenants.
    pub tenant_registration: bool,
    /// Setting: whether a reset request that names no tenant looks up only verified addresses,
    /// looks up all addresses, or is refused.
    pub tenantless_sign_in: TenantlessSignIn,
}
