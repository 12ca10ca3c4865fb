//! Comparison keys of names: two names that look alike have the same key.

use unicode_normalization::UnicodeNormalization;

/// The names of the system roles, without the characters that separate words.
const SYSTEM_ROLES: [&str; 5] = ["orgadmin", "manager", "member", "viewer", "platformadmin"];

/// The comparison key of a role's name: lower case, with a single hyphen for each run of spaces,
/// dots, underscores and hyphens between words.
#[must_use]
pub fn normalized_role_name(name: &str) -> String {
    let words = role_words(name);
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Whether a name looks like the name of a system role. Case and the characters that separate words
/// are ignored.
#[must_use]
pub fn is_built_in_role(name: &str) -> bool {
    let letters = role_words(name).collect::<String>().to_ascii_lowercase();
    SYSTEM_ROLES.contains(&letters.as_str())
}

fn role_words(name: &str) -> impl Iterator<Item = &str> {
    name.split([' ', '.', '_', '-']).filter(|word| !word.is_empty())
}

/// The comparison key of a service account's name: NFKC, lower case, one space between words,
/// without invisible characters.
#[must_use]
pub fn normalized_account_name(name: &str) -> String {
    let folded: String =
        name.nfkc().flat_map(char::to_lowercase).filter(|&c| !is_invisible(c)).collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a character is a zero-width joiner or non-joiner, or a variation selector. Names may
/// contain these characters. They only change how the characters next to them are displayed.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N16: role names that differ only in case and word separators have the same key.
    #[test]
    fn role_names_that_look_alike_have_the_same_key() {
        for name in ["Ops Team", "ops_team", "OPS-TEAM", "ops. team", "ops team.", "ops__team"] {
            assert_eq!(normalized_role_name(name), "ops-team");
        }
        for name in ["opsteam", "ops team 1", "o.p.s team"] {
            assert_ne!(normalized_role_name(name), "ops-team");
        }
        for name in ["org_admin", "Org Admin", "OrgAdmin", "MEMBER", "v.i.e.w.e.r", "manager-"] {
            assert!(is_built_in_role(name), "{name}");
        }
        for name in ["org_admins", "members", "admin", "view"] {
            assert!(!is_built_in_role(name), "{name}");
        }
    }

    /// N16: account names that differ only in case, spaces and invisible characters have the same
    /// key.
    #[test]
    fn account_names_that_look_alike_have_the_same_key() {
        for name in
            ["Été  1", "été 1", "ÉTÉ\u{a0}1", "e\u{301}te\u{301} 1", "été １", "é\u{200d}té 1"]
        {
            assert_eq!(normalized_account_name(name), "été 1", "{name:?}");
        }
        assert_ne!(normalized_account_name("ete 1"), "été 1");
    }
}
