//! Passwords that clients send for a comparison with a stored hash.

use secrecy::{ExposeSecret, SecretString};

use super::{normalise, stored_hash::StoredHash};

/// A password as typed, and in NFKC form. This service hashes the NFKC form. Another system may
/// have hashed the password as typed.
#[derive(Clone)]
pub struct PresentedPassword {
    typed: SecretString,
    normalised: SecretString,
}

impl PresentedPassword {
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { typed: text.into(), normalised: normalise(text) }
    }

    /// The NFKC form, from which new hashes are computed.
    #[must_use]
    pub fn normalised(&self) -> SecretString {
        self.normalised.clone()
    }

    /// Maximum number of forms that are compared with a stored hash, whatever the algorithm of the
    /// hash.
    #[must_use]
    pub fn max_forms(&self) -> u32 {
        if self.is_normalised() { 1 } else { 2 }
    }

    fn is_normalised(&self) -> bool {
        self.typed.expose_secret() == self.normalised.expose_secret()
    }

    /// The forms of the password to compare with this stored hash, in the order of the comparisons.
    pub(super) fn forms(&self, stored: &StoredHash) -> Vec<SecretString> {
        match stored {
            StoredHash::Bcrypt { .. } if !self.is_normalised() => {
                vec![self.typed.clone(), self.normalised.clone()]
            }
            _ => vec![self.normalised.clone()],
        }
    }
}
