//! The most common passwords, which attackers try first (SP 800-63B-4, section 3.1.1.2;
//! ASVS 6.2.4).

use fst::Set;

/// The 100,000 most common passwords that are long enough to pass the other rules.
/// The folder `third_party/passwords` documents the source of the list.
static LIST: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/common-passwords.fst"));

/// Whether a normalised password is in the list. The password must be in lower case.
pub(super) fn is_common(password: &str) -> bool {
    Set::new(LIST).is_ok_and(|set| set.contains(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_complete_and_valid() {
        let list = Set::new(LIST).expect("the list is a set");
        assert_eq!(list.len(), 100_000);
        list.as_fst().verify().expect("the checksum matches");
        for common in ["password", "12345678", "qwertyuiop", "smokey24"] {
            assert!(is_common(common), "{common}");
        }
        for uncommon in ["", "passwor", "correct horse battery staple"] {
            assert!(!is_common(uncommon), "{uncommon}");
        }
    }
}
