//! Service accounts, with which programs sign in, and their keys.

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
