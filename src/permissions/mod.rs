//! The decision: may this subject do this, in this tenant, now?
//!
//! [`Engine`] gathers what a subject holds, [`decide`] judges it without any
//! I/O, `rpc` speaks gRPC.

mod assigned;
mod basis;
mod batch;
mod changed;
mod compiled;
pub mod decide;
mod engine;
mod explain;
mod held;
mod holders;
mod memory;
pub mod permission;
mod rpc;
pub mod scope;
mod standing;
mod store;
mod subjects;
mod watch;
mod watchers;

use std::sync::Arc;

use crate::{api::paging::Pages, audit::Refusals, db::Db, sessions::Authenticator};

pub use compiled::PermissionSet;
pub use engine::Engine;
pub use memory::Memory;
pub use permission::Permission;
pub use scope::Scope;
pub use standing::{Grant, Role, Standing, UserStanding};
pub use store::standing_in;
pub use watch::Watch;
pub use watchers::Watchers;

/// Decides over gRPC.
pub struct Permissions {
    /// Postgres, for what no decision waits for.
    pub db: Db,
    /// Begins pages of lists.
    pub pages: Pages,
    /// Knows what subjects hold.
    pub engine: Engine,
    /// Knows whose the access tokens are that stand for subjects.
    pub authenticator: Authenticator,
    /// Tells what changes.
    pub watch: Watch,
    /// Records what is refused within a call that is answered.
    pub refusals: Arc<Refusals>,
}
