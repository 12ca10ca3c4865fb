//! Permission checks: whether a subject has a permission in a tenant now.
//!
//! [`Engine`] loads the standing of a subject, [`decide`] makes the decision without any I/O, and
//! `rpc` is the gRPC service.
#![warn(missing_docs)]

mod assigned_scope;
mod basis;
mod batch;
mod changed;
mod compiled;
pub mod decide;
mod engine;
mod explain;
mod holders;
mod list_permissions;
pub mod permission;
mod rpc;
pub mod scope;
mod standing;
mod standing_cache;
mod store;
mod subjects;
mod watch;
mod watchers;

use std::sync::Arc;

use crate::{api::paging::Pages, audit::Refusals, db::Db, sessions::Authenticator};

pub use compiled::PermissionSet;
pub use engine::Engine;
pub use permission::Permission;
pub use scope::Scope;
pub use standing::{Grant, Role, Standing, UserStanding};
pub use standing_cache::StandingCache;
pub use store::standing_in_transaction;
pub use watch::Watch;
pub use watchers::Watchers;

/// The gRPC service `PermissionService`.
pub struct Permissions {
    /// The database pool, for lists and explanations. A plain Check does not use it directly.
    pub db: Db,
    /// Starts the pages of lists and seals their page tokens.
    pub pages: Pages,
    /// Loads the standings of subjects, from the cache or from Postgres.
    pub engine: Engine,
    /// Verifies access tokens that a request gives in place of a subject's id.
    pub authenticator: Authenticator,
    /// Opens the `WatchPermissions` streams.
    pub watch: Watch,
    /// Records a refusal inside a call that itself succeeds, such as one item of a batch.
    pub refusals: Arc<Refusals>,
}
