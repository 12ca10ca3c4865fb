//! Emails: the normalised form for comparisons, and the blind index for look-ups.

use unicode_normalization::UnicodeNormalization;

use crate::privacy::{Cipher, Index};

/// The normalised form of an email for comparisons: NFKC in lower case. Emails that differ only in
/// case, or in compatible forms of a character, have the same normalised form.
#[must_use]
pub fn key(email: &str) -> String {
    email.nfkc().flat_map(char::to_lowercase).collect()
}

/// The blind index of an email in the form of [`key`].
#[must_use]
pub fn index(cipher: &Cipher, key: &str) -> Index {
    cipher.index("email", key.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_that_differ_in_case_or_width_have_the_same_key() {
        assert_eq!(key("Ada@Example.ORG"), key("ada@example.org"));
        assert_eq!(key("ａｄａ@example.org"), "ada@example.org");
        assert_ne!(key("ada+a@example.org"), key("ada@example.org"));
    }
}
