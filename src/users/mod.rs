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
    mail::MailQueue,
    passwords::{Hasher, PasswordPolicy},
    sessions::SessionCache,
    sign_in::FailureTiming,
};

/// The gRPC service `UserService`.
pub struct Users {
    pub db: Db,
    pub pages: Pages,
    pub session_cache: SessionCache,
    pub hasher: Hasher,
    /// Delays the responses to calls with a wrong current password.
    pub failure_timing: Arc<FailureTiming>,
    pub limits: Limits,
    /// Sends a mail to the old address of a changed email; `None` when the server sends no mail.
    pub mail_queue: Option<Arc<MailQueue>>,
    /// The server's password policy. A tenant's settings can only make it stricter.
    pub password_policy: PasswordPolicy,
}
