//! The normalised form of an email for comparisons, and its blind index for look-ups.

use unicode_normalization::UnicodeNormalization;

use crate::privacy::{Cipher, Index};

/// The normalised form of an email for comparisons: NFKC in lower case. Emails that differ only in
/// case, or in compatible forms of a character, have the same normalised form.
#[must_use]
pub fn normalized(email: &str) -> String {
    email.nfkc().flat_map(char::to_lowercase).collect()
}

/// The blind index of an email that [`normalized`] has normalised.
#[must_use]
pub fn blind_index(cipher: &Cipher, normalized_email: &str) -> Index {
    cipher.blind_index("email", normalized_email.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emails_that_differ_in_case_or_width_have_the_same_normalised_form() {
        assert_eq!(normalized("Ada@Example.ORG"), normalized("ada@example.org"));
        assert_eq!(normalized("ａｄａ@example.org"), "ada@example.org");
        assert_ne!(normalized("ada+a@example.org"), normalized("ada@example.org"));
    }
}
