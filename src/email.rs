//! Emails: the form in which they are compared, and the blind index by which they are found.

use unicode_normalization::UnicodeNormalization;

use crate::privacy::{Cipher, Index};

/// The form of an email that is compared: NFKC in lower case. Spellings that look the same are
/// equal in this form.
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
    fn case_and_width_do_not_matter() {
        assert_eq!(key("Ada@Example.ORG"), key("ada@example.org"));
        assert_eq!(key("ａｄａ@example.org"), "ada@example.org");
        assert_ne!(key("ada+a@example.org"), key("ada@example.org"));
    }
}
