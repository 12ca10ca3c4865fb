//! The change feed, as this replica follows it: what keeps memory true.
//!
//! Whatever can alter a decision is written to the table `changes` by triggers, in
//! the transaction that alters it. Each replica follows it: at once when woken, and
//! every quarter of a second whatever happens. Redis only wakes; nothing depends
//! on it.
//!
//! [`Feed`] is what the rest of the service knows of it; `follower` reads, `wake`
//! says and hears that there is something to read, `since` reads for a watcher that
//! comes back, `trim` deletes what nobody
//! needs any more, `token` and `progress` say how much was seen.

mod change;
mod follower;
mod handle;
mod metrics;
mod progress;
mod since;
mod state;
mod token;
mod trim;
mod wake;

pub use change::{Change, Follow, Kind};
pub use handle::{CONNECTIONS, Feed, Fresh, Sources};
pub use token::Sealer;
