//! Consistency tokens. A token contains bounds of the transactions that a response includes.
//! Clients send the token with later requests.
//!
//! A token is opaque and can't be forged, because it is sealed with a key that all replicas share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    error::Result,
    tokens::{Keyring, OpaqueTokens, Renew},
};

/// Format version, the first byte of the payload.
const VERSION: u8 = 1;

/// The label from which the key for consistency tokens is derived. Nothing else uses this label.
const LABEL: &str = "tenantry consistency token";

/// Length of the payload in bytes: version, horizon, position.
const PAYLOAD_LENGTH: usize = 1 + 8 + 8;

/// The transactions that a response includes, as bounds of Postgres transaction ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Revision {
    /// Lower bound for a client that resumes a stream. Every change that the response does not
    /// include belongs to the transaction with this id, or to a transaction with a larger id.
    pub horizon: u64,
    /// Upper bound. A replica that has applied every committed transaction with a smaller id has
    /// applied everything that the response includes.
    pub position: u64,
}

/// Seals and opens consistency tokens.
pub struct Sealer {
    tokens: OpaqueTokens,
    /// The number of key changes so far.
    key_generation: AtomicU64,
}

impl Sealer {
    /// Derives the keys from the keyring that the replicas share.
    ///
    /// # Errors
    /// Fails when a key can't be derived, which no keyring causes.
    pub fn new(keyring: &Keyring) -> anyhow::Result<Self> {
        Ok(Self { tokens: OpaqueTokens::new(keyring, LABEL)?, key_generation: AtomicU64::new(0) })
    }

    /// A number that changes when the keys change. A token that was sealed with an earlier
    /// generation of keys may soon be refused.
    #[must_use]
    pub fn key_generation(&self) -> u64 {
        self.key_generation.load(Ordering::Acquire)
    }

    /// Seals a revision into a token.
    ///
    /// # Errors
    /// INTERNAL when the key can't seal the token, which no key causes.
    pub fn seal(&self, revision: Revision) -> Result<String> {
        let mut payload = Vec::with_capacity(PAYLOAD_LENGTH);
        payload.push(VERSION);
        payload.extend(revision.horizon.to_be_bytes());
        payload.extend(revision.position.to_be_bytes());
        self.tokens.seal(&[], payload)
    }

    /// Opens a token; `None` when no replica sealed the token.
    #[must_use]
    pub fn open(&self, token: &str) -> Option<Revision> {
        parse(&self.tokens.open(&[], token)?)
    }
}

impl Renew for Sealer {
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()> {
        self.tokens.renew(keyring)?;
        self.key_generation.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

fn parse(payload: &[u8]) -> Option<Revision> {
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
        let tokens = OpaqueTokens::with(LABEL, &[[1; 32]]).expect("the key is derived");
        let sealer = Sealer { tokens, key_generation: AtomicU64::new(0) };
        let revision = Revision { horizon: 7, position: u64::MAX };
        let token = sealer.seal(revision).expect("the token is sealed");
        assert_eq!(sealer.open(&token), Some(revision));
        let longer_payload = vec![VERSION; PAYLOAD_LENGTH + 1];
        let other_token = sealer.tokens.seal(&[], longer_payload).expect("the token is sealed");
        assert_eq!(sealer.open(&other_token), None, "a payload of another length");
    }
}
