//! How far this replica has come, and the token that says so.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwapOption;

use super::token::{Revision, Sealer};
use crate::error::Result;

/// How far this replica has come.
pub(super) struct Progress {
    sealer: Arc<Sealer>,
    /// Every transaction below it had ended, and its changes were passed on.
    horizon: AtomicU64,
    /// Nothing at or above it was seen by anything in memory.
    position: AtomicU64,
    /// The latest token, for those who need the same.
    latest: ArcSwapOption<Latest>,
}

struct Latest {
    round: u64,
    revision: Revision,
    token: String,
}

impl Progress {
    pub(super) fn new(sealer: Arc<Sealer>) -> Self {
        Self {
            sealer,
            horizon: AtomicU64::new(0),
            position: AtomicU64::new(0),
            latest: ArcSwapOption::empty(),
        }
    }

    pub(super) fn horizon(&self) -> u64 {
        self.horizon.load(Ordering::Acquire)
    }

    /// All changes below it were passed on.
    pub(super) fn passed_on(&self, horizon: u64) {
        self.horizon.store(horizon, Ordering::Release);
    }

    /// Something of a snapshot with this xmax is about to be known.
    pub(super) fn saw(&self, xmax: u64) {
        self.position.fetch_max(xmax, Ordering::AcqRel);
    }

    /// The token of what is known now, for somebody who began to look when the
    /// horizon was this. It is sealed once for all who need the same.
    pub(super) fn token(&self, horizon: u64) -> Result<String> {
        let revision = Revision { horizon, position: self.position.load(Ordering::Acquire) };
        // Read before it is sealed: at worst it is sealed once more.
        let round = self.sealer.round();
        if let Some(latest) = &*self.latest.load()
            && latest.revision == revision
            && latest.round == round
        {
            return Ok(latest.token.clone());
        }
        let token = self.sealer.seal(revision)?;
        self.latest.store(Some(Arc::new(Latest { round, revision, token: token.clone() })));
        Ok(token)
    }

    /// The token of a transaction that is about to commit.
    pub(super) fn token_of(&self, transaction: u64) -> Result<String> {
        self.sealer.seal(Revision { horizon: transaction, position: transaction + 1 })
    }

    pub(super) fn open(&self, token: &str) -> Option<Revision> {
        self.sealer.open(token)
    }
}
