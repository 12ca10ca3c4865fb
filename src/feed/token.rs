//! Consistency tokens. A token contains bounds of the transactions that a response includes.
//! Clients send the token with later requests.
//!
//! A token is opaque and can't be forged, because it is sealed with a key that all replicas share.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    error::Result,
    tokens::{Keyring, OpaqueTokens, Renew},
};

/// Format version of a token of the first epoch, the first byte of the payload. Versions of the
/// program that know no epochs can read only this format.
const WITHOUT_EPOCH: u8 = 1;

/// Format version of a token of a later epoch.
const WITH_EPOCH: u8 = 2;

/// The label from which the key for consistency tokens is derived. Nothing else uses this label.
const LABEL: &str = "tenantry consistency token";

/// Maximum length of the payload in bytes: version, horizon, position, epoch.
const PAYLOAD_LENGTH: usize = 1 + 8 + 8 + 8;

/// The transactions that a response includes, as bounds of Postgres transaction ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Revision {
    /// Lower bound for a client that resumes a stream. Every change that the response does not
    /// include belongs to the transaction with this id, or to a transaction with a larger id.
    pub horizon: u64,
    /// Upper bound. A replica that has applied every committed transaction with a smaller id has
    /// applied everything that the response includes.
    pub position: u64,
    /// The epoch whose transactions have these ids. 0 is the first epoch of each database.
    pub epoch: u64,
}

/// The upper bound of a snapshot of Postgres.
#[derive(Clone, Copy, Debug)]
pub struct Snapshot {
    /// Every transaction that the snapshot has seen has a smaller id.
    pub xmax: u64,
    /// The current epoch in the snapshot.
    pub epoch: u64,
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
    /// Fails when a key can't be derived. This does not happen with a valid keyring.
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
    /// INTERNAL when the key can't seal the token. This does not happen with a valid key.
    pub fn seal(&self, revision: Revision) -> Result<String> {
        let mut payload = Vec::with_capacity(PAYLOAD_LENGTH);
        payload.push(if revision.epoch == 0 { WITHOUT_EPOCH } else { WITH_EPOCH });
        payload.extend(revision.horizon.to_be_bytes());
        payload.extend(revision.position.to_be_bytes());
        if revision.epoch != 0 {
            payload.extend(revision.epoch.to_be_bytes());
        }
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
    let (horizon, numbers) = numbers.split_first_chunk()?;
    let (position, epoch_bytes) = numbers.split_first_chunk()?;
    let epoch = match *version {
        WITHOUT_EPOCH => epoch_bytes.is_empty().then_some(0)?,
        WITH_EPOCH => u64::from_be_bytes(epoch_bytes.try_into().ok()?),
        _ => return None,
    };
    let (horizon, position) = (u64::from_be_bytes(*horizon), u64::from_be_bytes(*position));
    Some(Revision { horizon, position, epoch })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer() -> Sealer {
        let tokens = OpaqueTokens::from_secrets(LABEL, &[[1; 32]]).expect("the key is derived");
        Sealer { tokens, key_generation: AtomicU64::new(0) }
    }

    #[test]
    fn an_opened_token_has_the_sealed_revision() {
        let sealer = sealer();
        for epoch in [0, 1, u64::MAX] {
            let revision = Revision { horizon: 7, position: u64::MAX, epoch };
            let token = sealer.seal(revision).expect("the token is sealed");
            assert_eq!(sealer.open(&token), Some(revision));
        }
        // A payload of a valid token has 17 bytes without an epoch, and 25 bytes with an epoch.
        for (version, length) in [(WITHOUT_EPOCH, 18), (WITH_EPOCH, 17), (WITH_EPOCH, 26), (3, 25)]
        {
            let mut payload = vec![1; length];
            payload[0] = version;
            let token = sealer.tokens.seal(&[], payload).expect("the token is sealed");
            assert_eq!(sealer.open(&token), None, "{version}, {length}");
        }
    }

    /// N39: programs of 0.1.0 know no epochs. They share the tokens of the first epoch.
    #[test]
    fn a_token_of_the_first_epoch_has_the_format_of_0_1_0() {
        let sealer = sealer();
        let revision = Revision { horizon: 7, position: 9, epoch: 0 };
        let token = sealer.seal(revision).expect("the token is sealed");
        let payload = sealer.tokens.open(&[], &token).expect("the token opens");
        let expected = [&[1][..], &7_u64.to_be_bytes(), &9_u64.to_be_bytes()].concat();
        assert_eq!(payload, expected);
    }
}
