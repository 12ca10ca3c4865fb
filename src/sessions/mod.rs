//! Sessions: what a sign-in opens, and what its tokens live and die with.

mod cache;
pub mod open;
mod rpc;
pub mod store;

use crate::db::Db;

pub use cache::{Lookup, SessionCache};

/// Shows and ends sessions over gRPC.
pub struct Sessions {
    /// Postgres.
    pub db: Db,
    /// What ended sessions must leave.
    pub cache: SessionCache,
}
