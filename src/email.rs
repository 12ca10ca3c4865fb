//! Emails: the rule for emails that may be stored, the normalised form for comparisons, the form
//! for mail servers, and the blind index for lookups.

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use lettre::Address;
use unicode_normalization::UnicodeNormalization;

use crate::{
    error::{Error, Result},
    privacy::{Cipher, Index},
    proto::validate::{self, Pattern},
};

/// Maximum length of an email for mail servers, in bytes (RFC 5321, section 4.5.3.1.3).
const MAX_BYTES: usize = 254;

/// Checks that a new email of a user is an address to which mails can be sent.
///
/// # Errors
/// Returns a violation of the field `path` when the email is not such an address.
pub fn check(path: &str, email: &str) -> Result<()> {
    if is_address(email) {
        return Ok(());
    }
    Err(Error::field(path, "must be an email address"))
}

/// Whether an email is an address as mail servers define it: a local part without quotes (RFC
/// 5321), also with international characters (RFC 6531), and a domain name, also an international
/// one (RFC 5891). The normalised form must be an address too.
#[must_use]
pub fn is_address(email: &str) -> bool {
    let nfkc: String = email.nfkc().collect();
    for_mail_server(email).is_some() && for_mail_server(&nfkc).is_some()
}

/// The address for mail servers: the domain is in ASCII (A-labels). So only an email with an
/// international local part requires a mail server with the extension SMTPUTF8. `None` when the
/// email is not an address.
#[must_use]
pub fn for_mail_server(email: &str) -> Option<Address> {
    static LOCAL_PART: Pattern =
        Pattern::new(|| validate::compile(r#"^[^"\p{C}\p{Z}][^\p{C}\p{Z}]*$"#));
    let (local_part, domain) = email.rsplit_once('@')?;
    let address = Address::new(local_part, ascii_domain(domain)?).ok()?;
    let is_valid = validate::matches(&LOCAL_PART, local_part)
        && AsRef::<str>::as_ref(&address).len() <= MAX_BYTES;
    is_valid.then_some(address)
}

/// The normalised form of an email for comparisons: NFKC in lower case, and the domain in A-labels.
/// Emails that differ only in case, in compatible forms of a character, or in the form of an
/// international domain, have the same normalised form.
#[must_use]
pub fn normalized(email: &str) -> String {
    let email: String = email.nfkc().flat_map(char::to_lowercase).collect();
    // The normalised form of an email in ASCII must stay as it is, because blind indexes of this
    // form are stored. So the domain is not checked or changed.
    if email.is_ascii() {
        return email;
    }
    let Some((local_part, domain)) = email.rsplit_once('@') else { return email };
    match ascii_domain(domain) {
        Some(domain) => format!("{local_part}@{domain}"),
        None => email,
    }
}

/// The domain in lower-case A-labels (UTS 46, non-transitional); `None` when it is not a domain
/// name.
fn ascii_domain(domain: &str) -> Option<String> {
    let ascii = Uts46::new().to_ascii(
        domain.as_bytes(),
        AsciiDenyList::STD3,
        Hyphens::CheckFirstLast,
        DnsLength::Verify,
    );
    ascii.ok().map(std::borrow::Cow::into_owned)
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

    /// N43: both forms of an international domain are the same domain.
    #[test]
    fn the_normalised_form_of_an_international_domain_is_in_ascii() {
        for email in
            ["ada@Bücher.example", "ADA@xn--bcher-kva.example", "ada@bu\u{308}cher.example"]
        {
            assert_eq!(normalized(email), "ada@xn--bcher-kva.example", "{email}");
        }
        assert_eq!(normalized("Ädä@例え.テスト"), "ädä@xn--r8jz45g.xn--zckzah");
        // An email in ASCII is only set in lower case, also if its domain is invalid.
        for email in ["a..b@c", "a@b_c.example", "a@xn--a", "a@-b"] {
            assert_eq!(normalized(email), email);
        }
    }

    /// N43: an email that may be stored is an address to which mails can be sent.
    #[test]
    fn only_addresses_of_mail_servers_are_accepted() {
        let label = "a".repeat(63);
        for valid in [
            "a@b",
            "Ada.L+x@example.co.uk",
            "ada@bücher.example",
            "ada@xn--bcher-kva.example",
            "用户@例え.テスト",
            "ädä@example.org",
            "o'brien/x=y@example.org",
            &format!("a@{label}.{label}"),
        ] {
            assert!(is_address(valid), "{valid:?}");
        }
        let invalid_label = format!("a@{label}a");
        let long_local_part = format!("{}@b", "a".repeat(65));
        let long_address = format!("{}@{label}.{label}.{label}", "a".repeat(64));
        for invalid in [
            "",
            "a",
            "@b",
            "a@",
            "a..b@c",
            ".a@b",
            "a.@b",
            "a．．b@c",
            "a@b.",
            "a@.b",
            "a@b..c",
            "a@-b",
            "a@b-",
            "a@b@c",
            "a b@c",
            "a\u{a0}b@c",
            "a\u{202e}b@c",
            "a@b_c",
            "a@xn--a",
            "a@[127.0.0.1]",
            "\"a\"@b",
            "a@b\n",
            "Ada <a@b>",
            &invalid_label,
            &long_local_part,
            &long_address,
        ] {
            assert!(!is_address(invalid), "{invalid:?}");
        }
    }
}
