//! Service accounts (the accounts of programs) and their API keys.

mod accounts;
mod keys;
mod read;
mod rpc;
pub mod store;

use crate::{api::paging::Pages, db::Db, sessions::SessionCache};

/// The implementation of `ServiceAccountService`.
pub struct ServiceAccounts {
    pub db: Db,
    pub pages: Pages,
    /// The cache of sessions and API keys. `RevokeApiKey` and the deletion of an account end keys,
    /// so they invalidate the tenant's entries.
    pub session_cache: SessionCache,
}
