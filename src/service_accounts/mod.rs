//! Service accounts, which are the accounts of programs, and their API keys.

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
    /// The session cache, which is invalidated when keys end.
    pub cache: SessionCache,
}
