//! Consistency tokens: how much something has seen, for clients to hand back.
//!
//! They are opaque and can't be forged: sealed with a key that all replicas share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    error::Result,
    tokens::{Keyring, OpaqueTokens, Renew},
};

/// The tokens' format, in their first byte.
const VERSION: u8 = 1;

/// Names the key's use.
const LABEL: &str = "tenantry consistency token";

/// A version and two numbers.
const PAYLOAD: usize = 1 + 8 + 8;

/// How much was seen, in ids of Postgres's transactions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Revision {
    /// Whoever reads the changes from here on misses nothing that was not seen.
    pub horizon: u64,
    /// Whoever knows every transaction below it that has ended knows all that was
    /// seen.
    pub position: u64,
}

/// Seals and opens tokens.
pub struct Sealer {
    tokens: OpaqueTokens,
    /// How often the keys changed.
    round: AtomicU64,
}

impl Sealer {
    /// A sealer with the keys that the replicas share.
    ///
    /// # Errors
    /// When a key can't be made, which no keyring makes it.
    pub fn new(keyring: &Keyring) -> anyhow::Result<Self> {
        Ok(Self { tokens: OpaqueTokens::new(keyring, LABEL)?, round: AtomicU64::new(0) })
    }

    /// A number that changes with the keys: a token that was sealed in another round
    /// may not open for long.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire)
    }

    /// The token of a revision.
    ///
    /// # Errors
    /// INTERNAL when the key does not seal, which none does.
    pub fn seal(&self, revision: Revision) -> Result<String> {
        let mut payload = Vec::with_capacity(PAYLOAD);
        payload.push(VERSION);
        payload.extend(revision.horizon.to_be_bytes());
        payload.extend(revision.position.to_be_bytes());
        self.tokens.seal(&[], payload)
    }

    /// The revision of a token that a replica sealed; `None` for any other text.
    #[must_use]
    pub fn open(&self, token: &str) -> Option<Revision> {
        read(&self.tokens.open(&[], token)?)
    }
}

impl Renew for Sealer {
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()> {
        self.tokens.renew(keyring)?;
        self.round.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

fn read(payload: &[u8]) -> Option<Revision> {
    let (version, numbers) = payload.split_first()?;
    let (horizon, position) = numbers.split_first_chunk()?;
    let position = position.try_into().ok().filter(|_| *version == VERSION)?;
    Some(Revision { horizon: u64::from_be_bytes(*horizon), position: u64::from_be_bytes(position) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_comes_back_as_it_was_sealed() {
        let tokens = OpaqueTokens::with(LABEL, &[[1; 32]]).expect("a key");
        let sealer = Sealer { tokens, round: AtomicU64::new(0) };
        let revision = Revision { horizon: 7, position: u64::MAX };
        let token = sealer.seal(revision).expect("sealed");
        assert_eq!(sealer.open(&token), Some(revision));
        let other = sealer.tokens.seal(&[], vec![VERSION; PAYLOAD + 1]).expect("sealed");
        assert_eq!(sealer.open(&other), None, "another length");
    }
}
