//! Passwords that somebody presents to be compared with a stored hash.

use secrecy::{ExposeSecret, SecretString};

use super::{kept::Kept, normalise};

/// A password as it was typed, and its NFKC form. Our own hashes are of the NFKC form; a
/// hash from elsewhere is of whatever its system hashed.
#[derive(Clone)]
pub struct Presented {
    typed: SecretString,
    normalised: SecretString,
}

impl Presented {
    /// The password of a request.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self { typed: text.into(), normalised: normalise(text) }
    }

    /// The form that new hashes are made of.
    #[must_use]
    pub fn normalised(&self) -> SecretString {
        self.normalised.clone()
    }

    /// The forms to compare with a stored hash, in their order.
    pub(super) fn forms(&self, kept: &Kept) -> Vec<SecretString> {
        match kept {
            Kept::Bcrypt { .. }
                if self.typed.expose_secret() != self.normalised.expose_secret() =>
            {
                vec![self.typed.clone(), self.normalised.clone()]
            }
            _ => vec![self.normalised.clone()],
        }
    }
}
