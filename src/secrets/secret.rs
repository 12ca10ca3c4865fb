//! Random secrets. Each secret is returned to a client once and stored as a hash.

use aws_lc_rs::{
    digest::{SHA256, digest},
    rand,
};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Length of a secret, in bytes. 256 random bits can't be guessed, so a fast hash protects the
/// secret well enough.
pub const LENGTH: usize = 32;

/// Generates a random secret.
///
/// # Errors
/// When the operating system provides no random bytes.
pub fn random() -> Result<Zeroizing<[u8; LENGTH]>> {
    let mut secret = Zeroizing::new([0; LENGTH]);
    rand::fill(secret.as_mut_slice()).map_err(|_| Error::defect("no random bytes"))?;
    Ok(secret)
}

/// The SHA-256 hash under which a secret is stored.
#[must_use]
pub fn hash(secret: &[u8]) -> Vec<u8> {
    digest(&SHA256, secret).as_ref().to_vec()
}
