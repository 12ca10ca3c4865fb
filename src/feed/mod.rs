//! The change feed, which keeps this replica's in-memory caches up to date.
//!
//! Triggers write each change that can alter a decision to the table `changes`, in the same
//! transaction. Each replica reads new changes every 250 ms, and immediately when it is woken.
//! Redis only carries wake-ups, so correctness does not depend on Redis.
//!
//! The files: [`Feed`] is the handle for the rest of the service. `follower` reads the feed. `wake`
//! sends and receives wake-ups. `changes_since` reads the changes for a client that opens a stream
//! again. `reached` decides whether Postgres has the changes of a token, and `epochs` whether a
//! restore or a failover lost them. `trim` deletes old changes. `state` records how fresh the
//! caches are. `progress` and `token` create consistency tokens.

mod change;
mod changes_since;
mod epochs;
mod follower;
mod handle;
mod metrics;
mod progress;
mod reached;
mod state;
mod token;
mod trim;
mod wake;

pub use change::{Change, ChangeListener, Kind};
pub use handle::{CONNECTIONS, Feed, FreshnessProof, Sources};
pub use reached::Reached;
pub use token::{Revision, Sealer, Snapshot};
