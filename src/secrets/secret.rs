//! Secrets that are handed out once and kept as hashes.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// 256 random bits: nobody guesses them, so a fast hash of them tells nothing.
pub const LENGTH: usize = 32;

/// A new secret.
///
/// # Errors
/// When the system has no random bytes.
pub fn random() -> Result<Zeroizing<[u8; LENGTH]>> {
    let mut secret = Zeroizing::new([0; LENGTH]);
    rand::fill(secret.as_mut_slice()).map_err(|_| Error::defect("no random bytes"))?;
    Ok(secret)
}

/// SHA-256.
#[must_use]
pub fn hash(of: &[u8]) -> Vec<u8> {
    digest(&SHA256, of).as_ref().to_vec()
}
