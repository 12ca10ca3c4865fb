//! Passwords: the rules for new passwords, the hashing, and the stored hashes.

mod algorithms;
mod common;
mod hasher;
mod import;
mod memory;
mod metrics;
mod pepper;
mod presented;
mod queue;
mod rules;
mod stored_hash;

pub use algorithms::Comparison;
pub use hasher::{Hasher, QueueSlot, WorstCase};
pub use import::check_import;
pub use pepper::missing_peppers;
pub use presented::PresentedPassword;
pub use rules::{ForbiddenWords, PasswordPolicy};

use secrecy::SecretString;
use unicode_normalization::UnicodeNormalization;

/// The NFKC form of a password, from which hashes are computed (SP 800-63B-4, section 3.1.1.2).
/// With this form, keyboards that encode the same characters differently give the same hash. No
/// other change is made to a password.
#[must_use]
pub fn normalise(password: &str) -> SecretString {
    password.nfkc().collect::<String>().into()
}
