//! Operations of a user on the own account: registration, change and reset of the password.

mod change_password;
mod register;
mod request_reset;
mod reset_password;

use std::sync::Arc;

use crate::{
    config::TenantlessSignIn,
    db::Db,
    limits::Limits,
    mail::Mails,
    passwords::{Hasher, PasswordPolicy},
    sessions::SessionCache,
    sign_in::Failures,
};

/// The operations on accounts, with their dependencies. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub db: Db,
    pub cache: SessionCache,
    pub hasher: Hasher,
    /// Decides when a wrong current password is answered.
    pub failures: Arc<Failures>,
    pub limits: Limits,
    /// Sends password reset mails; `None` when the server sends no mail.
    pub mails: Option<Arc<Mails>>,
    /// The server's policy, which a tenant's settings can only make stricter.
    pub password_policy: PasswordPolicy,
    /// Whether Register may create tenants.
    pub tenant_registration: bool,
    /// The email addresses by which a reset request that names no tenant finds accounts.
    pub tenantless: TenantlessSignIn,
}
