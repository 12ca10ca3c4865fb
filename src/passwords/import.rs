//! Decides which password hashes of other systems may be imported: bcrypt hashes up to a maximum
//! cost.

use super::stored_hash::{StoredHash, bcrypt_cpu_cost, parse_bcrypt};
use crate::error::{Error, Result};

/// Maximum cost (the work factor of bcrypt) of a bcrypt hash at import.
pub(super) const BCRYPT_IMPORT: u32 = 12;

/// Estimated cost of a comparison with the most expensive hash that may be imported, in
/// microseconds of CPU time.
pub(super) const MAX_IMPORT_CPU_COST: u64 = bcrypt_cpu_cost(BCRYPT_IMPORT);

/// Checks a password hash that is imported for a user. The hash must be a valid bcrypt hash of an
/// allowed cost.
///
/// # Errors
/// `INVALID_ARGUMENT` for `field`.
pub fn check_import(field: &'static str, hash: &str) -> Result<()> {
    match parse_bcrypt(hash) {
        Some(StoredHash::Bcrypt { cost, .. }) if cost <= BCRYPT_IMPORT => Ok(()),
        Some(_) => Err(Error::field(field, format!("must have a cost of {BCRYPT_IMPORT} at most"))),
        None => {
            let text = "must be a bcrypt hash whose salt and hash are valid base64, \
                        with all unused bits zero";
            Err(Error::field(field, text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::pepper::Peppers, *};

    fn is_readable(text: &str) -> bool {
        StoredHash::parse(text, &Peppers::default()).is_ok()
    }

    #[test]
    fn an_import_is_checked_by_the_parser_of_stored_hashes() {
        let good = ::bcrypt::hash_with_salt("pw", 4, [7; 16]).expect("bcrypt succeeds").to_string();
        assert!(check_import("f", &good).is_ok());
        // The last characters of the salt (index 28) and of the hash (index 59) have unused bits.
        // The character `/` has the value 1 in the base64 of bcrypt, so it sets an unused bit.
        let unused_salt_bits = format!("{}{}{}", &good[..28], "/", &good[29..]);
        let unused_hash_bits = format!("{}{}", &good[..59], "/");
        for bad in [
            &unused_salt_bits,
            &unused_hash_bits,
            &good[..59],
            &good.replace("$2b$", "$2x$"),
            &good.replace("$04$", "$03$"),
            &good.replace("$04$", "$13$"),
            &good.replace("$04$", "$+4$"),
            "",
        ] {
            assert!(check_import("f", bad).is_err(), "{bad}");
        }
        assert!(
            is_readable(&good.replace("$04$", "$14$")),
            "a hash of cost 14 was stored when the maximum cost at import was higher"
        );
        assert!(!is_readable(&good.replace("$04$", "$15$")));
    }
}
