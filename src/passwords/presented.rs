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

    /// How many forms are compared with a stored hash at most, whichever it is.
    #[must_use]
    pub fn forms_at_most(&self) -> u32 {
        if self.is_normalised() { 1 } else { 2 }
    }

    fn is_normalised(&self) -> bool {
        self.typed.expose_secret() == self.normalised.expose_secret()
    }

    /// The forms to compare with a stored hash, in their order.
    pub(super) fn forms(&self, kept: &Kept) -> Vec<SecretString> {
        match kept {
            Kept::Bcrypt { .. } if !self.is_normalised() => {
                vec![self.typed.clone(), self.normalised.clone()]
            }
            _ => vec![self.normalised.clone()],
        }
    }
}
