//! Comparison keys of names: two names that look alike have the same key.

use unicode_normalization::UnicodeNormalization;

/// The names of the system roles, without the characters that separate words.
const BUILT_IN_ROLES: [&str; 5] = ["orgadmin", "manager", "member", "viewer", "platformadmin"];

/// The comparison key of a role's name: lower case, with a single hyphen for each run of spaces,
/// dots, underscores and hyphens between words.
#[must_use]
pub fn role_key(name: &str) -> String {
    let words = role_words(name);
    words.collect::<Vec<_>>().join("-").to_ascii_lowercase()
}

/// Whether a name looks like the name of a system role. The characters that separate words don't
/// matter.
#[must_use]
pub fn is_built_in_role(name: &str) -> bool {
    let letters = role_words(name).collect::<String>().to_ascii_lowercase();
    BUILT_IN_ROLES.contains(&letters.as_str())
}

fn role_words(name: &str) -> impl Iterator<Item = &str> {
    name.split([' ', '.', '_', '-']).filter(|word| !word.is_empty())
}

/// The comparison key of a service account's name: NFKC, lower case, one space between words,
/// without invisible characters.
#[must_use]
pub fn account_key(name: &str) -> String {
    let folded: String =
        name.nfkc().flat_map(char::to_lowercase).filter(|&c| !is_invisible(c)).collect();
    folded.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Whether a character is a joiner or a variation selector. Names may have these characters; they
/// only change how their neighbouring characters are drawn.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N16
    #[test]
    fn role_names_that_read_alike_are_the_same() {
        for same in ["Ops Team", "ops_team", "OPS-TEAM", "ops. team", "ops team.", "ops__team"] {
            assert_eq!(role_key(same), "ops-team");
        }
        for other in ["opsteam", "ops team 1", "o.p.s team"] {
            assert_ne!(role_key(other), "ops-team");
        }
        for taken in ["org_admin", "Org Admin", "OrgAdmin", "MEMBER", "v.i.e.w.e.r", "manager-"] {
            assert!(is_built_in_role(taken), "{taken}");
        }
        for free in ["org_admins", "members", "admin", "view"] {
            assert!(!is_built_in_role(free), "{free}");
        }
    }

    /// N16
    #[test]
    fn account_names_that_read_alike_are_the_same() {
        for same in
            ["Été  1", "été 1", "ÉTÉ\u{a0}1", "e\u{301}te\u{301} 1", "été １", "é\u{200d}té 1"]
        {
            assert_eq!(account_key(same), "été 1", "{same:?}");
        }
        assert_ne!(account_key("ete 1"), "été 1");
    }
}
