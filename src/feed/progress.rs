//! The transaction ids that this replica has reached. Consistency tokens are created from these
//! ids.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::{
    epochs::Epochs,
    token::{Revision, Sealer},
};
use crate::error::Result;

/// The transaction ids that this replica has reached.
pub(super) struct Progress {
    sealer: Arc<Sealer>,
    /// Every transaction with a smaller id has ended, and the listeners have applied its changes.
    horizon: AtomicU64,
    /// The largest xmax of all recorded snapshots. Cached data includes no change of the
    /// transaction with this id, or of a transaction with a larger id.
    position: AtomicU64,
    /// The last read of the feed.
    last_read: Mutex<LastRead>,
    /// The epochs at the last read.
    epochs: ArcSwap<Epochs>,
    /// The last sealed token, which is used again for the same revision.
    last_token: ArcSwapOption<SealedToken>,
}

/// A read of the feed.
#[derive(Default)]
struct LastRead {
    /// The xmax of the read's snapshot: at the time of the read, the server had no transaction with
    /// this id or a larger id.
    xmax: u64,
    /// The value of [`crate::pg::Postgres::generation`] before the read.
    server_generation: u64,
}

struct SealedToken {
    key_generation: u64,
    revision: Revision,
    token: String,
}

impl Progress {
    pub(super) fn new(sealer: Arc<Sealer>) -> Self {
        Self {
            sealer,
            horizon: AtomicU64::new(0),
            position: AtomicU64::new(0),
            last_read: Mutex::default(),
            epochs: ArcSwap::default(),
            last_token: ArcSwapOption::empty(),
        }
    }

    pub(super) fn horizon(&self) -> u64 {
        self.horizon.load(Ordering::Acquire)
    }

    /// Records that the listeners have applied the changes of all transactions with ids smaller
    /// than `horizon`.
    pub(super) fn set_horizon(&self, horizon: u64) {
        self.horizon.store(horizon, Ordering::Release);
    }

    /// Records the xmax of a snapshot. Must be called before data that was read in this snapshot is
    /// used.
    pub(super) fn record_snapshot(&self, xmax: u64) {
        self.position.fetch_max(xmax, Ordering::AcqRel);
    }

    /// Records the xmax of a read of the feed, and the generation of the server that answered. Must
    /// be called before the changes of the read are applied.
    pub(super) fn record_read(&self, xmax: u64, server_generation: u64) {
        *self.lock_last_read() = LastRead { xmax, server_generation };
        self.record_snapshot(xmax);
    }

    fn lock_last_read(&self) -> MutexGuard<'_, LastRead> {
        self.last_read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The current epoch at the last read.
    pub(super) fn epoch(&self) -> u64 {
        self.epochs.load().current()
    }

    /// Whether the database has the transactions of the revision, by the epochs at the last read;
    /// `None` when the epoch of the revision was unknown.
    pub(super) fn has_transactions_of(&self, revision: Revision) -> Option<bool> {
        self.epochs.load().have_transactions_of(revision)
    }

    /// Records the epochs. Must be called before [`Progress::record_read`].
    pub(super) fn record_epochs(&self, epochs: Epochs) {
        self.epochs.store(Arc::new(epochs));
    }

    /// Forgets the position, because another server may lack the transactions up to it.
    pub(super) fn forget_position(&self) {
        self.position.store(0, Ordering::Release);
    }

    /// Whether the server of this generation had reached a revision at the last read. False when
    /// another server answered the last read.
    pub(super) fn has_reached(&self, revision: Revision, server_generation: u64) -> bool {
        let last_read = self.lock_last_read();
        last_read.server_generation == server_generation && last_read.xmax >= revision.position
    }

    /// The token for a decision. `horizon` is the value before the decision's data was read. All
    /// decisions of the same revision get the same token.
    pub(super) fn token(&self, horizon: u64) -> Result<String> {
        let position = self.position.load(Ordering::Acquire);
        let revision = Revision { horizon, position, epoch: self.epoch() };
        // Read before the token is sealed: if the keys change in between, the next call seals the
        // token again.
        let key_generation = self.sealer.key_generation();
        if let Some(last_token) = &*self.last_token.load()
            && last_token.revision == revision
            && last_token.key_generation == key_generation
        {
            return Ok(last_token.token.clone());
        }
        let token = self.sealer.seal(revision)?;
        self.last_token.store(Some(Arc::new(SealedToken {
            key_generation,
            revision,
            token: token.clone(),
        })));
        Ok(token)
    }

    /// The token for a transaction that is about to commit, in the epoch that it reads.
    pub(super) fn token_for_transaction(&self, transaction: u64, epoch: u64) -> Result<String> {
        self.sealer.seal(Revision { horizon: transaction, position: transaction + 1, epoch })
    }

    pub(super) fn open(&self, token: &str) -> Option<Revision> {
        self.sealer.open(token)
    }
}
