//! What a new password must be (SP 800-63B-4, 3.1.1.2): long enough, and not
//! what an attacker tries first. No rules about its composition.

use secrecy::{ExposeSecret, SecretString};
use unicode_normalization::UnicodeNormalization;

use crate::error::{Error, Result};

/// Whose password it is to be: words that must not be the password.
pub struct Context<'a> {
    /// The user's email.
    pub email: &'a str,
    /// The tenant's name.
    pub tenant_name: &'a str,
    /// The tenant's slug.
    pub tenant_slug: &'a str,
    /// The shortest that is allowed, in characters.
    pub min_length: usize,
}

/// The name of the service itself, which no password may be (ASVS 6.2.11).
const SERVICE: &str = "tenantry";

/// Checks a normalised password. Its greatest length is a rule of the proto.
///
/// # Errors
/// `INVALID_ARGUMENT` naming `field`, with the reason.
pub fn check(field: &str, password: &SecretString, context: &Context<'_>) -> Result<()> {
    let password = password.expose_secret();
    if password.chars().count() < context.min_length {
        let text = format!("must have at least {} characters", context.min_length);
        return Err(Error::field(field, text));
    }
    let lower = password.to_lowercase();
    let local_part = context.email.split('@').next().unwrap_or_default();
    let words = [context.email, local_part, context.tenant_name, context.tenant_slug, SERVICE];
    if words.iter().any(|word| is_repeated(&lower, &comparable(word))) {
        let text = "must not be the email, or the name of the organisation or the service";
        return Err(Error::field(field, text));
    }
    Ok(())
}

/// A word in the form that the password has.
fn comparable(word: &str) -> String {
    word.trim().nfkc().collect::<String>().to_lowercase()
}

/// Whether the text is the word, once or over and over.
fn is_repeated(text: &str, word: &str) -> bool {
    !word.is_empty() && !text.is_empty() && text.replace(word, "").is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(password: &str) -> Result<()> {
        let context = Context {
            email: "Ada.Lovelace@example.org",
            tenant_name: "Analytical Engines",
            tenant_slug: "engines",
            min_length: 8,
        };
        check("password", &password.into(), &context)
    }

    #[test]
    fn length_counts_code_points() {
        assert!(verdict("🦀🦀🦀🦀🦀🦀🦀").is_err(), "seven, though 28 bytes");
        assert!(verdict("🦀🦀🦀🦀🦀🦀🦀🐪").is_ok());
    }

    #[test]
    fn names_are_no_passwords() {
        for word in [
            "ada.lovelace@EXAMPLE.org",
            "ada.lovelace",
            "analytical engines",
            "ENGINESengines",
            "tenantry",
        ] {
            assert!(verdict(word).is_err(), "{word}");
        }
        assert!(verdict("engines of delight").is_ok());
    }
}
