//! Consistency tokens. A token says which transactions a response has seen. Clients send the token
//! back with later requests.
//!
//! A token is opaque and can't be forged: it is sealed with a key that all replicas share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    error::Result,
    tokens::{Keyring, OpaqueTokens, Renew},
};

/// Format version, the first byte of the payload.
const VERSION: u8 = 1;

/// The label from which the key for consistency tokens is derived. No other use has this label.
const LABEL: &str = "tenantry consistency token";

/// Length of the payload in bytes: version, horizon, position.
const PAYLOAD: usize = 1 + 8 + 8;

/// The transactions that a response has seen, as bounds of Postgres transaction ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Revision {
    /// Lower bound for resuming: a reader that reads the changes of all transactions from this id
    /// on misses no change that the response had not seen.
    pub horizon: u64,
    /// Upper bound: a replica that has applied every committed transaction below this id has
    /// seen everything that the response saw.
    pub position: u64,
}

/// Seals and opens consistency tokens.
pub struct Sealer {
    tokens: OpaqueTokens,
    /// Number of key changes so far.
    round: AtomicU64,
}

impl Sealer {
    /// Derives the keys from the keyring that the replicas share.
    ///
    /// # Errors
    /// When a key can't be derived. No keyring causes this.
    pub fn new(keyring: &Keyring) -> anyhow::Result<Self> {
        Ok(Self { tokens: OpaqueTokens::new(keyring, LABEL)?, round: AtomicU64::new(0) })
    }

    /// A number that changes when the keys change. A token that was sealed in an earlier round may
    /// soon be rejected.
    #[must_use]
    pub fn round(&self) -> u64 {
        self.round.load(Ordering::Acquire)
    }

    /// Seals a revision into a token.
    ///
    /// # Errors
    /// INTERNAL when the key can't seal. No key causes this.
    pub fn seal(&self, revision: Revision) -> Result<String> {
        let mut payload = Vec::with_capacity(PAYLOAD);
        payload.push(VERSION);
        payload.extend(revision.horizon.to_be_bytes());
        payload.extend(revision.position.to_be_bytes());
        self.tokens.seal(&[], payload)
    }

    /// Opens a token; `None` when no replica sealed the token.
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
    fn an_opened_token_has_the_sealed_revision() {
        let tokens = OpaqueTokens::with(LABEL, &[[1; 32]]).expect("the tokens cannot be created");
        let sealer = Sealer { tokens, round: AtomicU64::new(0) };
        let revision = Revision { horizon: 7, position: u64::MAX };
        let token = sealer.seal(revision).expect("sealing failed");
        assert_eq!(sealer.open(&token), Some(revision));
        let other = sealer.tokens.seal(&[], vec![VERSION; PAYLOAD + 1]).expect("sealing failed");
        assert_eq!(sealer.open(&other), None, "a payload of another length");
    }
}
