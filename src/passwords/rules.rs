//! The rules for new passwords (SP 800-63B-4, section 3.1.1.2): a minimum length, and no
//! password that attackers try first. There are no composition rules.

use secrecy::{ExposeSecret, SecretString};
use unicode_normalization::UnicodeNormalization;

use super::common::is_common;
use crate::{
    error::{Error, Result},
    proto::v1::ErrorReason,
};

/// The minimum length of new passwords, in characters.
#[derive(Clone, Copy, Debug)]
pub struct PasswordPolicy {
    min_length: usize,
}

impl Default for PasswordPolicy {
    /// The policy of a server with the lowest minimum length.
    fn default() -> Self {
        Self { min_length: Self::LOWEST.into() }
    }
}

impl PasswordPolicy {
    /// The lowest minimum length that the server's setting may have.
    pub const LOWEST: u8 = 8;

    /// The highest minimum length that the server's or a tenant's setting may have.
    pub const HIGHEST: u8 = 64;

    /// The policy of a server with this minimum length.
    #[must_use]
    pub fn of_server(min_length: usize) -> Self {
        Self { min_length }
    }

    /// The policy for users of a tenant whose settings have this minimum length. A tenant can make
    /// the server's policy stricter, but not weaker.
    #[must_use]
    pub fn for_tenant(self, min_length: Option<usize>) -> Self {
        Self { min_length: self.min_length.max(min_length.unwrap_or_default()) }
    }

    /// The minimum length, in characters.
    #[must_use]
    pub fn min_length(self) -> usize {
        self.min_length
    }

    /// Checks a new password in normalised form. The field rules in the proto check the maximum
    /// length.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` for `field`, with the reason `INVALID_FIELDS` when the password is too
    /// short, or `PASSWORD_TOO_COMMON` when the password is easy to guess.
    pub fn check(
        self,
        field: &'static str,
        password: &SecretString,
        forbidden_words: &ForbiddenWords<'_>,
    ) -> Result<()> {
        let password = password.expose_secret();
        if password.chars().count() < self.min_length {
            let text = format!("must have at least {} characters", self.min_length);
            return Err(Error::field(field, text));
        }
        let lower = password.to_lowercase();
        let ForbiddenWords { email, tenant_name, tenant_slug } = *forbidden_words;
        let local_part = email.split('@').next().unwrap_or_default();
        let words = [email, local_part, tenant_name, tenant_slug, SERVICE_NAME];
        // A password that repeats a word has the same repeated unit as the word.
        let password_unit = repeated_unit(&lower);
        let too_common = |text| Err(Error::Field(ErrorReason::PasswordTooCommon, field, text));
        if words.iter().any(|word| repeated_unit(&normalised_word(word)) == password_unit) {
            return too_common(
                "must not be or repeat the email, or the name of the organisation or the service",
            );
        }
        if is_common(&lower) {
            return too_common("must not be one of the most common passwords");
        }
        Ok(())
    }
}

/// The words that a user's password must not be.
pub struct ForbiddenWords<'a> {
    pub email: &'a str,
    pub tenant_name: &'a str,
    pub tenant_slug: &'a str,
}

/// The name of the service, which must not be a password (ASVS 6.2.11).
const SERVICE_NAME: &str = "tenantry";

/// A word in the form in which it is compared with a password: trimmed, in NFKC form and in lower
/// case.
fn normalised_word(word: &str) -> String {
    word.trim().nfkc().collect::<String>().to_lowercase()
}

/// The shortest start of `text` whose repetition gives the whole `text`: `abc` for `abcabc`, and
/// the whole text if nothing is repeated.
fn repeated_unit(text: &str) -> &str {
    let ends = text.char_indices().map(|(index, _)| index).skip(1);
    let mut units = ends.filter(|end| text.len().is_multiple_of(*end)).map(|end| &text[..end]);
    units.find(|unit| text == unit.repeat(text.len() / unit.len())).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(password: &str) -> Result<()> {
        let forbidden_words = ForbiddenWords {
            email: "Ada.Lovelace@example.org",
            tenant_name: "Analytical Engines",
            tenant_slug: "engines",
        };
        let policy = PasswordPolicy::default();
        policy.check("password", &crate::passwords::normalise(password), &forbidden_words)
    }

    #[test]
    fn a_tenant_cannot_make_the_policy_weaker() {
        let server = PasswordPolicy::of_server(15);
        for (tenant, min_length) in [(None, 15), (Some(8), 15), (Some(20), 20)] {
            assert_eq!(server.for_tenant(tenant).min_length(), min_length);
        }
    }

    #[test]
    fn the_minimum_length_counts_code_points() {
        assert!(check("🦀🦀🦀🦀🦀🦀🦀").is_err(), "seven characters, although 28 bytes");
        assert!(check("🦀🦀🦀🦀🦀🦀🦀🐪").is_ok());
    }

    #[test]
    fn names_and_common_passwords_are_refused() {
        for word in [
            "ada.lovelace@EXAMPLE.org",
            "ada.lovelace",
            "analytical engines",
            "ENGINESengines",
            "tenantry",
            "iloveyou",
            "Football",
            "passwordPassword",
            "ｓｕｎｓｈｉｎｅ",
        ] {
            assert!(check(word).is_err(), "{word}");
        }
        for good in ["engines of delight", "password of mine", "abcabcabcabc", "xxxxxxxxxxxxxxx"] {
            assert!(check(good).is_ok(), "{good}");
        }
    }
}
