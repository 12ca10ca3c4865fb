//! A tenant's users.

mod create;
mod lifecycle;
mod list;
mod order;
mod read;
mod rpc;
mod state;
pub mod store;
mod update;

pub use state::UserState;

use std::sync::Arc;

use crate::{
    api::paging::Pages,
    db::Db,
    limits::Limits,
    mail::Mails,
    passwords::{Hasher, PasswordPolicy},
    sessions::SessionCache,
    sign_in::Failures,
};

/// Manages users over gRPC.
pub struct Users {
    /// Postgres.
    pub db: Db,
    /// Begins pages of lists.
    pub pages: Pages,
    /// What ended sessions must leave.
    pub cache: SessionCache,
    /// Hashes new users' passwords, and compares callers' own.
    pub hasher: Hasher,
    /// When a wrong password is answered.
    pub failures: Arc<Failures>,
    /// Counts wrong passwords.
    pub limits: Limits,
    /// Tells the old address of a changed email; `None` where no mail is sent.
    pub mails: Option<Arc<Mails>>,
    /// The server's policy, which a tenant's settings can only make stricter.
    pub password_policy: PasswordPolicy,
}
