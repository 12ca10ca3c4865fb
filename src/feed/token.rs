//! Consistency tokens: how much something has seen, for clients to hand back.
//!
//! They are opaque and can't be forged: sealed with a key that all replicas share.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::{
    error::{Error, Result},
    tokens::{Keyring, Renew},
};

/// The tokens' format, in their first byte.
const VERSION: u8 = 1;

/// Names the key's use.
const LABEL: &str = "tenantry consistency token";

/// A version and two numbers.
const PAYLOAD: usize = 1 + 8 + 8;

/// The longest token that is looked at, in bytes.
const MAX_TOKEN: usize = 128;

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
    /// The one that seals first; all of them open.
    keys: ArcSwap<Vec<RandomizedNonceKey>>,
    /// How often they changed.
    round: AtomicU64,
}

impl Sealer {
    /// A sealer with the keys that the replicas share.
    ///
    /// # Errors
    /// When a key can't be made, which no keyring makes it.
    pub fn new(keyring: &Keyring) -> anyhow::Result<Self> {
        Ok(Self::with(keys(&keyring.derive(LABEL)?)?))
    }

    fn with(keys: Vec<RandomizedNonceKey>) -> Self {
        Self { keys: ArcSwap::from_pointee(keys), round: AtomicU64::new(0) }
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
        let mut sealed = Vec::with_capacity(NONCE_LEN + PAYLOAD + AES_256_GCM.tag_len());
        sealed.push(VERSION);
        sealed.extend(revision.horizon.to_be_bytes());
        sealed.extend(revision.position.to_be_bytes());
        let keys = self.keys.load();
        let key = keys.first().ok_or_else(|| Error::defect("nothing to seal with"))?;
        let nonce = key.seal_in_place_append_tag(Aad::empty(), &mut sealed);
        let nonce = nonce.map_err(|_| Error::defect("a token can't be sealed"))?;
        sealed.splice(..0, *nonce.as_ref());
        Ok(BASE64_URL_SAFE_NO_PAD.encode(sealed))
    }

    /// The revision of a token that a replica sealed; `None` for any other text.
    #[must_use]
    pub fn open(&self, token: &str) -> Option<Revision> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        self.keys.load().iter().find_map(|key| open(key, sealed.clone()))
    }
}

impl Renew for Sealer {
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()> {
        self.keys.store(Arc::new(keys(&keyring.derive(LABEL)?)?));
        self.round.fetch_add(1, Ordering::AcqRel);
        Ok(())
    }
}

fn keys(secrets: &[[u8; 32]]) -> anyhow::Result<Vec<RandomizedNonceKey>> {
    let keys = secrets.iter().map(|secret| RandomizedNonceKey::new(&AES_256_GCM, secret));
    Ok(keys.collect::<Result<_, _>>()?)
}

fn open(key: &RandomizedNonceKey, mut sealed: Vec<u8>) -> Option<Revision> {
    let (nonce, payload) = sealed.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let payload = key.open_in_place(nonce, Aad::empty(), payload).ok()?;
    let (version, numbers) = payload.split_first()?;
    let (horizon, position) = numbers.split_first_chunk()?;
    let position = position.try_into().ok().filter(|_| *version == VERSION)?;
    Some(Revision { horizon: u64::from_be_bytes(*horizon), position: u64::from_be_bytes(position) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealer(byte: u8) -> Sealer {
        Sealer::with(keys(&[[byte; 32]]).expect("a key"))
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_alone() {
        let revision = Revision { horizon: 7, position: u64::MAX };
        let token = sealer(1).seal(revision).expect("sealed");
        assert_eq!(sealer(1).open(&token), Some(revision));
        assert_eq!(sealer(2).open(&token), None);
        assert_ne!(sealer(1).seal(revision).expect("sealed"), token, "each has its own nonce");
    }

    #[test]
    fn another_key_seals_and_the_one_before_still_opens() {
        let old = sealer(1).seal(Revision::default()).expect("sealed");
        let both = Sealer::with(keys(&[[2; 32], [1; 32]]).expect("keys"));
        let new = both.seal(Revision::default()).expect("sealed");
        assert_eq!(both.open(&old), Some(Revision::default()));
        assert_eq!(sealer(2).open(&new), Some(Revision::default()));
        assert_eq!(sealer(1).open(&new), None);
    }

    #[test]
    fn an_altered_token_does_not_open() {
        let token = sealer(1).seal(Revision::default()).expect("sealed");
        for at in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("text");
            assert_eq!(sealer(1).open(&altered), None, "{at}");
        }
        for other in ["", "AAAA", "=", &token[1..], &format!("{token}A"), &"A".repeat(10_000)] {
            assert_eq!(sealer(1).open(other), None, "{other}");
        }
    }
}
