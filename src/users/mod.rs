//! The users of a tenant.

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

/// The gRPC service `UserService`.
pub struct Users {
    pub db: Db,
    pub pages: Pages,
    pub cache: SessionCache,
    pub hasher: Hasher,
    /// Decides at which time a call with a wrong current password is answered.
    pub failures: Arc<Failures>,
    pub limits: Limits,
    /// Sends a mail to the old address of a changed email; `None` when the server sends no mail.
    pub mails: Option<Arc<Mails>>,
    /// The server's password policy. A tenant's settings can only make it stricter.
    pub password_policy: PasswordPolicy,
}
