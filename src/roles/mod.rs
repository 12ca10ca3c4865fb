//! Roles: named sets of permissions, and their assignments to subjects.

mod assign;
mod assignments;
pub mod audited;
mod edit;
pub mod last_admin;
mod read;
mod rpc;
pub mod store;
pub mod system;

use crate::{api::paging::Pages, db::Db};

pub use assign::assign_new;
pub use assignments::unexpired_assignments;

/// The gRPC service `RoleService`.
pub struct Roles {
    pub db: Db,
    /// Starts the pages of lists and seals their page tokens.
    pub pages: Pages,
}
