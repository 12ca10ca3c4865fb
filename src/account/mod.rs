//! The life of an account: registration, and changes of its password by its user.

mod change_password;
mod register;
mod request_reset;
mod reset_password;

use std::sync::Arc;

use crate::{
    config::TenantlessSignIn, db::Db, limits::Limits, mail::Mails, passwords::Hasher,
    sessions::SessionCache, sign_in::Failures,
};

/// What changes of accounts work with. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    pub db: Db,
    pub cache: SessionCache,
    pub hasher: Hasher,
    /// Decides when a wrong current password is answered.
    pub failures: Arc<Failures>,
    pub limits: Limits,
    /// Sends password reset mails; `None` where the server sends no mail.
    pub mails: Option<Arc<Mails>>,
    /// The minimum length of a password that the server allows, in characters.
    pub min_length: usize,
    /// Whether Register may create tenants.
    pub tenant_registration: bool,
    /// Which email addresses count where a reset names no tenant.
    pub tenantless: TenantlessSignIn,
}
