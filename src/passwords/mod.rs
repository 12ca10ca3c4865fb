//! Passwords: the rules for new passwords, the hashing, and the stored hashes.

mod common;
mod hasher;
mod metrics;
mod pepper;
mod presented;
mod queue;
mod rules;
mod scheme;
mod stored_hash;

pub use hasher::{Hasher, QueueSlot, WorstCase};
pub use presented::Presented;
pub use rules::{Context, PasswordPolicy};
pub use scheme::Outcome;
pub use stored_hash::check_import;

use secrecy::SecretString;
use unicode_normalization::UnicodeNormalization;

/// The normalised form of a password, which is hashed: NFKC (SP 800-63B-4, section 3.1.1.2).
/// With NFKC, keyboards that encode the same characters differently give the same hash. No other
/// change is made.
#[must_use]
pub fn normalise(password: &str) -> SecretString {
    password.nfkc().collect::<String>().into()
}
