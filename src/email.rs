//! Emails, compared.

use unicode_normalization::UnicodeNormalization;

use crate::privacy::{Cipher, Index};

/// The one form of an email that is compared: NFKC, lower case. So two
/// spellings that look the same are the same.
#[must_use]
pub fn key(email: &str) -> String {
    email.nfkc().flat_map(char::to_lowercase).collect()
}

/// What the form that is compared is found by.
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
