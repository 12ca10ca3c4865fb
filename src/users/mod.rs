//! A tenant's users.

mod create;
pub mod credentials;
pub mod email;
mod lifecycle;
mod list;
mod order;
mod rpc;
pub mod store;
mod update;

use crate::{db::Db, paging::Pages, passwords::Hasher, sessions::SessionCache};

/// Manages users over gRPC.
pub struct Users {
    /// Postgres.
    pub db: Db,
    /// Begins pages of lists.
    pub pages: Pages,
    /// What ended sessions must leave.
    pub cache: SessionCache,
    /// Hashes new users' passwords.
    pub hasher: Hasher,
    /// The shortest password that the server allows.
    pub min_length: usize,
}
