//! Tenants: organisations. The data of a tenant is isolated from all other tenants.
//!
//! - Rule: `find_tenant` (`migrations/0028_delete_tenants.sql`) finds a tenant only by its complete
//!   id or slug.
//! - Rule: `sign_in_tenants` (`migrations/0014_find_tenants.sql`) decides which tenants are
//!   candidates for a sign-in that names no tenant.

pub mod audited;
pub mod create;
mod lifecycle;
mod passwords;
pub mod purge;
mod read;
mod rpc;
pub mod settings;
mod slug;
mod slug_cache;
mod state;
pub mod store;
mod update;

pub use passwords::check_password;
pub use slug_cache::SlugCache;
pub use state::TenantState;
pub use store::{TenantRef, find, find_by_email};

use crate::{api::paging::Pages, db::Db, passwords::PasswordPolicy, sessions::SessionCache};

/// The gRPC service `TenantService`.
pub struct Tenants {
    pub db: Db,
    pub pages: Pages,
    pub session_cache: SessionCache,
    /// The server's password policy. A tenant's settings can only make it stricter.
    pub password_policy: PasswordPolicy,
}
