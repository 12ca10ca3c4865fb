//! Sessions. A sign-in opens a session. When a session ends, its tokens become invalid.

mod authenticator;
mod cache;
mod ended_sessions;
mod entry;
pub mod open;
mod read;
mod revoke;
mod rpc;
pub mod store;
mod verified;

use crate::{api::paging::Pages, db::Db};

pub use authenticator::{Authenticated, Authenticator};
pub use cache::{Lookup, SessionCache, epoch_key};
pub use ended_sessions::EndedSessions;
pub use entry::EntryKeys;
pub use verified::{VerifiedToken, VerifiedTokens};

/// The gRPC service `SessionService`.
pub struct Sessions {
    pub db: Db,
    pub pages: Pages,
    pub session_cache: SessionCache,
}
