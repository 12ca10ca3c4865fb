//! Stored hashes: their formats, and the cost of a comparison. `import.rs` decides which hashes of
//! other systems may be imported.

use std::str::FromStr;

use argon2::{
    Params, Version,
    password_hash::phc::{Output, PasswordHash, Salt},
};
use bcrypt::{HashParts, Version as BcryptVersion};

use super::pepper::Peppers;

/// Length of the hashes that this service computes, in bytes (RFC 9106, section 4).
pub(super) const HASH_BYTES: usize = 32;

/// Maximum cost of a stored bcrypt hash. This cost is higher than [`super::import::BCRYPT_IMPORT`],
/// because an earlier version imported hashes of a higher cost.
const BCRYPT_STORED: u32 = 14;

/// Minimum cost of a bcrypt hash.
const BCRYPT_MIN: u32 = 4;

/// Maximum argon2id memory of a stored hash, in KiB: the maximum of `ARGON2_MEMORY_KIB`.
const MAX_MEMORY_KIB: u32 = 4 << 20;

/// Maximum argon2id iterations of a stored hash: the maximum of `ARGON2_ITERATIONS`.
const MAX_ITERATIONS: u32 = 100;

/// Minimum length of an argon2 salt, in bytes (RFC 9106, section 3.1).
const MIN_SALT_BYTES: usize = 8;

/// A stored hash that passwords can be compared with.
pub(super) enum StoredHash {
    /// A hash that this service computed.
    Argon2id { params: Params, salt: Salt, hash: Output },
    /// A hash imported from another system.
    Bcrypt { cost: u32, text: String },
}

/// The reason why a stored hash can't be used for a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum UnreadableHash {
    /// The format or a parameter of the hash is not supported.
    Format,
    /// The hash has the id of a pepper that is not configured.
    Pepper,
}

impl StoredHash {
    /// Parses a stored hash.
    pub(super) fn parse(text: &str, peppers: &Peppers) -> Result<Self, UnreadableHash> {
        let stored = if text.starts_with("$2") { parse_bcrypt(text) } else { parse_argon2id(text) };
        match stored.ok_or(UnreadableHash::Format)? {
            Self::Argon2id { params, .. } if peppers.secret(params.keyid()).is_none() => {
                Err(UnreadableHash::Pepper)
            }
            stored => Ok(stored),
        }
    }

    /// Estimated cost of one comparison, in microseconds of CPU time.
    pub(super) fn cpu_cost(&self) -> u64 {
        match self {
            Self::Argon2id { params, .. } => argon2id_cpu_cost(params),
            Self::Bcrypt { cost, .. } => bcrypt_cpu_cost(*cost),
        }
    }
}

/// Estimated cost of bcrypt, in microseconds of CPU time. The factor was measured on a machine
/// where argon2id takes one microsecond for each KiB and iteration.
pub(super) const fn bcrypt_cpu_cost(cost: u32) -> u64 {
    90 << cost
}

/// Estimated cost of argon2id with these parameters, in microseconds of CPU time.
pub(super) fn argon2id_cpu_cost(params: &Params) -> u64 {
    u64::from(params.m_cost()) * u64::from(params.t_cost())
}

fn parse_argon2id(text: &str) -> Option<StoredHash> {
    let parsed = PasswordHash::new(text).ok()?;
    let params = Params::try_from(&parsed).ok()?;
    let (salt, hash) = (parsed.salt?, parsed.hash?);
    let is_supported = parsed.algorithm.as_str() == "argon2id"
        && parsed.version == Some(Version::V0x13.into())
        && salt.len() >= MIN_SALT_BYTES
        && hash.len() == HASH_BYTES
        && params.m_cost() <= MAX_MEMORY_KIB
        && params.t_cost() <= MAX_ITERATIONS;
    is_supported.then_some(StoredHash::Argon2id { params, salt, hash })
}

pub(super) fn parse_bcrypt(text: &str) -> Option<StoredHash> {
    let version = match text.get(..4)? {
        "$2a$" => BcryptVersion::TwoA,
        "$2b$" => BcryptVersion::TwoB,
        "$2y$" => BcryptVersion::TwoY,
        _ => return None,
    };
    let parts = HashParts::from_str(text).ok()?;
    let cost = parts.get_cost();
    let is_supported =
        parts.format_for_version(version) == text && (BCRYPT_MIN..=BCRYPT_STORED).contains(&cost);
    is_supported.then(|| StoredHash::Bcrypt { cost, text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_readable(text: &str) -> bool {
        StoredHash::parse(text, &Peppers::default()).is_ok()
    }

    #[test]
    fn an_argon2id_hash_with_unsupported_parameters_is_unreadable() {
        let salt = "AAAAAAAAAAAAAAAAAAAAAA";
        let hash = "A".repeat(43);
        let with_head = |head: &str| format!("${head}${salt}${hash}");
        assert!(is_readable(&with_head("argon2id$v=19$m=19456,t=2,p=1")));
        for bad in [
            with_head("argon2i$v=19$m=19456,t=2,p=1"),
            with_head("argon2id$v=16$m=19456,t=2,p=1"),
            with_head("argon2id$m=19456,t=2,p=1"),
            with_head("argon2id$v=19$m=4294967295,t=2,p=1"),
            with_head("argon2id$v=19$m=19456,t=101,p=1"),
            with_head("argon2id$v=19$m=1,t=2,p=1"),
            format!("$argon2id$v=19$m=19456,t=2,p=1${salt}$AAAA"),
            format!("$argon2id$v=19$m=19456,t=2,p=1${salt}"),
            "$argon2id$".into(),
            String::new(),
        ] {
            assert!(!is_readable(&bad), "{bad}");
        }
    }
}
