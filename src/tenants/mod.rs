//! Tenants: the organisations whose data is kept separate.

pub mod audited;
pub mod create;
mod lifecycle;
mod read;
mod rpc;
mod seen;
pub mod settings;
mod slug;
mod state;
pub mod store;
mod update;

pub use seen::Seen;
pub use state::TenantState;
pub use store::{TenantRef, find, find_by_email};

use crate::{api::paging::Pages, db::Db, sessions::SessionCache};

/// The gRPC service `TenantService`.
pub struct Tenants {
    pub db: Db,
    pub pages: Pages,
    pub cache: SessionCache,
    /// The server's minimum length of a password, in characters.
    pub min_length: usize,
}
