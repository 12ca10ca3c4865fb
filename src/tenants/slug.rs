//! Derives a slug from a name.

use aws_lc_rs::digest;
use unicode_normalization::UnicodeNormalization;

/// Maximum length of a slug, in bytes.
const MAX_BYTES: usize = 63;

/// Derives a slug from a name: its ASCII letters and digits in lower case and without accents. Each
/// sequence of other characters becomes one dash. A name without ASCII letters and digits gets a
/// slug from its hash. The same name always gets the same slug.
pub fn from_name(name: &str) -> String {
    let mut slug = String::new();
    for c in name.nfkd().filter(|c| !is_accent(*c)).flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() {
            slug.push(c);
        } else if !slug.is_empty() && !slug.ends_with('-') {
            slug.push('-');
        }
    }
    slug.truncate(MAX_BYTES);
    let slug = slug.trim_end_matches('-');
    if slug.is_empty() {
        let hash = digest::digest(&digest::SHA256, name.as_bytes());
        // 6 bytes are enough to make equal slugs of two names improbable.
        let hex = hash.as_ref().iter().take(6).map(|byte| format!("{byte:02x}"));
        return format!("tenant-{}", hex.collect::<String>());
    }
    slug.to_owned()
}

fn is_accent(c: char) -> bool {
    unicode_normalization::char::is_combining_mark(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_has_the_letters_and_digits_of_the_name() {
        assert_eq!(from_name("Acme, Inc."), "acme-inc");
        assert_eq!(from_name("  Café  Zürich 24 "), "cafe-zurich-24");
        assert_eq!(from_name(&"a".repeat(100)).len(), MAX_BYTES);
        assert!(from_name("日本").starts_with("tenant-"));
    }
}
