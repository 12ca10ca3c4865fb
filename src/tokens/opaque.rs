//! Opaque tokens: clients send the tokens back unchanged and cannot read their payload. The tokens
//! are sealed with keys that all replicas derive from the signing keys for refresh tokens.

use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use super::{Keyring, Renew};
use crate::error::{Error, Result};

/// Maximum length of a token, in bytes. A longer token is refused before it is decoded.
const MAX_TOKEN: usize = 1024;

/// Seals and opens the tokens for one purpose with AES-256-GCM (SP 800-38D). Clients can neither
/// read nor alter a token.
pub struct OpaqueTokens {
    /// What the tokens are for, for example page tokens. Each purpose has its own keys.
    purpose: &'static str,
    /// The first key seals new tokens. All keys open tokens.
    keys: ArcSwap<Vec<RandomizedNonceKey>>,
}

impl OpaqueTokens {
    /// Derives the keys for a purpose from the keyring that the replicas share.
    ///
    /// # Errors
    /// When a key can't be derived. This does not happen with a valid keyring.
    pub fn new(keyring: &Keyring, purpose: &'static str) -> anyhow::Result<Self> {
        Self::from_secrets(purpose, &keyring.derive(purpose)?)
    }

    /// Creates the keys from these secrets.
    ///
    /// # Errors
    /// When a key can't be created. This does not happen with secrets of 32 bytes.
    pub(crate) fn from_secrets(
        purpose: &'static str,
        secrets: &[[u8; 32]],
    ) -> anyhow::Result<Self> {
        Ok(Self { purpose, keys: ArcSwap::from_pointee(create_keys(secrets)?) })
    }

    /// Seals a payload. The token opens only with the same binding.
    ///
    /// # Errors
    /// INTERNAL when the key can't seal. This does not happen with a valid key.
    pub fn seal(&self, binding: &[u8], mut payload: Vec<u8>) -> Result<String> {
        let keys = self.keys.load();
        let key = keys.first().ok_or_else(|| Error::defect("there is no key that seals tokens"))?;
        let nonce = key.seal_in_place_append_tag(Aad::from(binding), &mut payload);
        let nonce = nonce.map_err(|_| Error::defect("a token can't be sealed"))?;
        // A token is the nonce, followed by the ciphertext and its tag.
        payload.splice(..0, *nonce.as_ref());
        Ok(BASE64_URL_SAFE_NO_PAD.encode(payload))
    }

    /// Opens a token; `None` unless a current key and this binding open it.
    #[must_use]
    pub fn open(&self, binding: &[u8], token: &str) -> Option<Vec<u8>> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let sealed = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        self.keys.load().iter().find_map(|key| open(key, binding, sealed.clone()))
    }
}

impl Renew for OpaqueTokens {
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()> {
        self.keys.store(Arc::new(create_keys(&keyring.derive(self.purpose)?)?));
        Ok(())
    }
}

fn create_keys(secrets: &[[u8; 32]]) -> anyhow::Result<Vec<RandomizedNonceKey>> {
    let keys = secrets.iter().map(|secret| RandomizedNonceKey::new(&AES_256_GCM, secret));
    Ok(keys.collect::<Result<_, _>>()?)
}

fn open(key: &RandomizedNonceKey, binding: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let (nonce, payload) = sealed.split_at_mut_checked(NONCE_LEN)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let payload = key.open_in_place(nonce, Aad::from(binding), payload).ok()?;
    Some(payload.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(bytes: &[u8]) -> OpaqueTokens {
        let secrets: Vec<_> = bytes.iter().map(|byte| [*byte; 32]).collect();
        OpaqueTokens::from_secrets("test", &secrets).expect("the keys are created")
    }

    #[test]
    fn a_token_opens_only_with_the_same_key_and_binding() {
        let token = tokens(&[1]).seal(b"list", vec![7]).expect("the token is sealed");
        assert_eq!(tokens(&[1]).open(b"list", &token), Some(vec![7]));
        assert_eq!(tokens(&[2]).open(b"list", &token), None);
        assert_eq!(tokens(&[1]).open(b"lisT", &token), None);
        let second_token = tokens(&[1]).seal(b"list", vec![7]).expect("the token is sealed");
        assert_ne!(second_token, token, "each token has a different nonce");
    }

    #[test]
    fn tokens_of_the_old_key_open_after_a_rotation() {
        let old_token = tokens(&[1]).seal(b"", vec![7]).expect("the token is sealed");
        let tokens_with_both_keys = tokens(&[2, 1]);
        let new_token = tokens_with_both_keys.seal(b"", vec![8]).expect("the token is sealed");
        assert_eq!(tokens_with_both_keys.open(b"", &old_token), Some(vec![7]));
        assert_eq!(tokens(&[2]).open(b"", &new_token), Some(vec![8]), "the first key seals");
        assert_eq!(tokens(&[1]).open(b"", &new_token), None);
    }

    #[test]
    fn an_altered_token_does_not_open() {
        // Nonce, payload and tag have 12 + 17 + 16 = 45 bytes, a multiple of 3. So the base64 text
        // has no unused bits, and each altered character alters the bytes.
        let token = tokens(&[1]).seal(b"", vec![7; 17]).expect("the token is sealed");
        for index in 0..token.len() {
            let mut altered = token.clone().into_bytes();
            altered[index] = if altered[index] == b'A' { b'B' } else { b'A' };
            let altered = String::from_utf8(altered).expect("the token is ASCII");
            assert_eq!(tokens(&[1]).open(b"", &altered), None, "{index}");
        }
        for other in ["", "AAAA", "=", &token[1..], &format!("{token}A"), &"A".repeat(10_000)] {
            assert_eq!(tokens(&[1]).open(b"", other), None, "{other}");
        }
    }
}
