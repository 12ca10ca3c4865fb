//! Sessions: what a sign-in opens, and what its tokens live and die with.

mod authenticator;
mod cache;
mod ended;
mod entry;
pub mod open;
mod read;
mod revoke;
mod rpc;
pub mod store;
mod verified;

use crate::{api::paging::Pages, db::Db};

pub use authenticator::{Authenticated, Authenticator};
pub use cache::{Lookup, SessionCache};
pub use ended::Ended;
pub use entry::EntryKeys;
pub use verified::{Verified, VerifiedTokens};

/// Shows and ends sessions over gRPC.
pub struct Sessions {
    /// Postgres.
    pub db: Db,
    /// Begins pages of lists.
    pub pages: Pages,
    /// What ended sessions must leave.
    pub cache: SessionCache,
}
