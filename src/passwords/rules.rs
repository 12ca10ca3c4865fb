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
    /// The lowest minimum length that a server may set.
    pub const LOWEST: u8 = 8;

    /// The highest minimum length that a server or a tenant may set.
    pub const HIGHEST: u8 = 64;

    /// The policy of a server with this minimum length.
    #[must_use]
    pub fn of_server(min_length: usize) -> Self {
        Self { min_length }
    }

    /// The policy for users of a tenant. `min_length` is from the tenant's settings. A tenant can
    /// only make the server's policy stricter.
    #[must_use]
    pub fn for_tenant(self, min_length: Option<usize>) -> Self {
        Self { min_length: self.min_length.max(min_length.unwrap_or_default()) }
    }

    /// The minimum length, in characters.
    #[must_use]
    pub fn min_length(self) -> usize {
        self.min_length
    }

    /// Checks a new, normalised password. The proto's field rules check the maximum length.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` naming `field`: reason `INVALID_FIELDS` when the password is too short,
    /// `PASSWORD_TOO_COMMON` when the password is easy to guess.
    pub fn check(
        self,
        field: &'static str,
        password: &SecretString,
        context: &Context<'_>,
    ) -> Result<()> {
        let password = password.expose_secret();
        if password.chars().count() < self.min_length {
            let text = format!("must have at least {} characters", self.min_length);
            return Err(Error::field(field, text));
        }
        let lower = password.to_lowercase();
        let local_part = context.email.split('@').next().unwrap_or_default();
        let words = [context.email, local_part, context.tenant_name, context.tenant_slug, SERVICE];
        let repeated_prefix = repeated_prefix(&lower);
        let too_common = |text| Err(Error::Field(ErrorReason::PasswordTooCommon, field, text));
        if words.iter().any(|word| self::repeated_prefix(&comparable(word)) == repeated_prefix) {
            return too_common(
                "must not be the email, or the name of the organisation or the service",
            );
        }
        if is_common(&lower) {
            return too_common("must not be one of the most common passwords");
        }
        Ok(())
    }
}

/// The words of a user that must not be the password.
pub struct Context<'a> {
    pub email: &'a str,
    pub tenant_name: &'a str,
    pub tenant_slug: &'a str,
}

/// The name of the service, which must not be a password (ASVS 6.2.11).
const SERVICE: &str = "tenantry";

/// Normalises a word as passwords are normalised, trimmed and in lower case.
fn comparable(word: &str) -> String {
    word.trim().nfkc().collect::<String>().to_lowercase()
}

/// The shortest prefix that gives `text` when it is repeated one or more times.
fn repeated_prefix(text: &str) -> &str {
    let ends = text.char_indices().map(|(index, _)| index).skip(1);
    let mut units = ends.filter(|end| text.len().is_multiple_of(*end)).map(|end| &text[..end]);
    units.find(|prefix| text == prefix.repeat(text.len() / prefix.len())).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(password: &str) -> Result<()> {
        let context = Context {
            email: "Ada.Lovelace@example.org",
            tenant_name: "Analytical Engines",
            tenant_slug: "engines",
        };
        let policy = PasswordPolicy::default();
        policy.check("password", &crate::passwords::normalise(password), &context)
    }

    #[test]
    fn a_tenant_only_makes_the_policy_stricter() {
        let server = PasswordPolicy::of_server(15);
        for (tenant, min_length) in [(None, 15), (Some(8), 15), (Some(20), 20)] {
            assert_eq!(server.for_tenant(tenant).min_length(), min_length);
        }
    }

    #[test]
    fn the_length_is_a_number_of_code_points() {
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
