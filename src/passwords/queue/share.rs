//! What a tenant or a network has of the queue: places, expensive jobs, turns.

use std::{collections::HashMap, hash::Hash};

/// A network may have so many times what is free, a tenant once: one network leaves a
/// quarter, and one tenant half.
const OF_NETWORK: usize = 3;

/// Why there is no place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::passwords) enum Full {
    /// All are taken.
    All,
    /// The tenant has its share.
    OfTenant,
    /// The network has its share.
    OfNetwork,
}

/// Whether one more is free for a tenant and a network that have so many (dynamic
/// thresholds).
pub(super) fn room(free: usize, of_tenant: usize, of_network: usize) -> Result<(), Full> {
    if free == 0 {
        Err(Full::All)
    } else if of_tenant >= free {
        Err(Full::OfTenant)
    } else if of_network >= OF_NETWORK * free {
        Err(Full::OfNetwork)
    } else {
        Ok(())
    }
}

/// One's share.
#[derive(Clone, Copy, Default)]
pub(super) struct Share {
    /// Its places.
    pub places: usize,
    /// Its jobs, which wait or run.
    pub jobs: usize,
    /// Those of them that are expensive.
    pub expensive: usize,
    /// When its next job may start, by the queue's clock.
    pub start: u64,
    /// Whether its last job was expensive.
    pub last_expensive: bool,
}

/// The shares of all tenants, or of all networks.
pub(super) struct Shares<K>(HashMap<K, Share>);

impl<K> Default for Shares<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: Eq + Hash> Shares<K> {
    pub(super) fn get(&self, of: &K) -> Share {
        self.0.get(of).copied().unwrap_or_default()
    }

    pub(super) fn get_mut(&mut self, of: K) -> &mut Share {
        self.0.entry(of).or_default()
    }

    /// Forgets those that have nothing, but for those that were served ahead of others: as
    /// many as these at most.
    pub(super) fn forget(&mut self, clock: u64, most: usize) {
        let has_any = |share: &Share| share.places > 0 || share.jobs > 0;
        self.0.retain(|_, share| has_any(share) || share.start > clock);
        if self.0.len() > most {
            self.0.retain(|_, share| has_any(share));
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
