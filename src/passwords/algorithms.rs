//! Hash algorithms: argon2id, and bcrypt for imported hashes. `import.rs` decides which hashes may
//! be imported.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, ParamsBuilder, Version,
    password_hash::phc::{Ident, Output, ParamsString, PasswordHash, Salt},
};
use aws_lc_rs::{constant_time::verify_slices_are_equal, rand};

use super::{
    memory::WorkingMemory,
    pepper::Peppers,
    stored_hash::{HASH_BYTES, StoredHash},
};
use crate::{
    config::Passwords,
    error::{Error, Result},
};

/// The result of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// The password matches the hash. The hash is not replaced.
    Match,
    /// The password matches the hash, but the hash is outdated. The password must be hashed again,
    /// to replace the hash.
    OutdatedMatch,
    /// The password does not match the hash.
    Mismatch,
}

impl Comparison {
    fn new(is_match: bool, must_rehash: bool) -> Self {
        match (is_match, must_rehash) {
            (false, _) => Self::Mismatch,
            (true, false) => Self::Match,
            (true, true) => Self::OutdatedMatch,
        }
    }
}

/// Maximum input of bcrypt, in bytes. bcrypt ignores all further bytes.
const BCRYPT_INPUT_BYTES: usize = 72;

/// Length of new salts, in bytes (RFC 9106, section 4).
const SALT_BYTES: usize = 16;

/// argon2id with the configured parameters and pepper.
pub(super) struct Argon2id {
    params: Params,
    peppers: Arc<Peppers>,
    memory: WorkingMemory,
}

impl Argon2id {
    pub(super) fn new(config: &Passwords, peppers: Arc<Peppers>) -> Result<Self> {
        let params = ParamsBuilder::new()
            .m_cost(config.memory_kib)
            .t_cost(config.iterations)
            .p_cost(config.parallelism)
            .keyid(peppers.current_id())
            .output_len(HASH_BYTES)
            .build()
            .map_err(|e| Error::defect(format!("argon2 parameters: {e}")))?;
        let memory = WorkingMemory::new(config.hashing_memory, params.block_count());
        Ok(Self { params, peppers, memory })
    }

    /// Hashes a password with a random salt; returns the PHC string.
    pub(super) fn hash(&self, password: &[u8]) -> Result<String> {
        let mut salt = [0; SALT_BYTES];
        rand::fill(&mut salt).map_err(|_| Error::defect("no random bytes"))?;
        let params = self.params.clone();
        let hash = self.derive(password, &salt, &params)?;
        encode(&params, &salt, &hash)
    }

    /// Computes a hash and discards it, so that a comparison for a user without a usable hash takes
    /// the same time as any other comparison.
    pub(super) fn dummy_hash(&self, password: &[u8]) -> Result<()> {
        let params = self.params.clone();
        self.derive(password, &[0; SALT_BYTES], &params).map(drop)
    }

    /// Compares a password with a stored hash.
    pub(super) fn verify(&self, password: &[u8], stored: &StoredHash) -> Result<Comparison> {
        match stored {
            StoredHash::Argon2id { params, salt, hash } => {
                let derived = self.derive(password, salt, params)?;
                let is_match = verify_slices_are_equal(&derived, hash.as_bytes()).is_ok();
                Ok(Comparison::new(is_match, self.is_outdated(params)))
            }
            StoredHash::Bcrypt { text, .. } => {
                let is_match = bcrypt::verify(password, text)
                    .map_err(|e| Error::defect(format!("bcrypt: {e}")))?;
                // Every bcrypt hash is outdated. But a password that the hash covers only in part
                // must not be rehashed: the new hash would include bytes that were not compared.
                Ok(Comparison::new(is_match, is_covered_by_bcrypt(password)))
            }
        }
    }

    /// Whether a hash with these parameters must be replaced: a parameter is weaker than the
    /// configured parameter, or the parallelism or the pepper differs.
    fn is_outdated(&self, params: &Params) -> bool {
        let current = &self.params;
        params.m_cost() < current.m_cost()
            || params.t_cost() < current.t_cost()
            || params.p_cost() != current.p_cost()
            || params.keyid() != current.keyid()
    }

    pub(super) fn params(&self) -> &Params {
        &self.params
    }

    pub(super) fn memory(&self) -> &WorkingMemory {
        &self.memory
    }

    fn derive(&self, password: &[u8], salt: &[u8], params: &Params) -> Result<[u8; HASH_BYTES]> {
        let pepper = self.peppers.secret(params.keyid());
        let pepper = pepper.ok_or_else(|| Error::defect("a pepper that is not configured"))?;
        let mut memory = self.memory.take(params.block_count());
        let memory = memory.as_mut();
        let mut hash = [0; HASH_BYTES];
        Argon2::new_with_secret(pepper, Algorithm::Argon2id, Version::V0x13, params.clone())
            .and_then(|argon2| {
                argon2.hash_password_into_with_memory(password, salt, &mut hash, memory)
            })
            .map_err(|e| Error::defect(format!("argon2: {e}")))?;
        Ok(hash)
    }
}

fn encode(params: &Params, salt: &[u8], hash: &[u8]) -> Result<String> {
    let defect = |_| Error::defect("a hash can't be encoded");
    let encoded = PasswordHash {
        algorithm: Ident::new("argon2id").map_err(defect)?,
        version: Some(Version::V0x13.into()),
        params: ParamsString::try_from(params).map_err(|_| Error::defect("argon2 parameters"))?,
        salt: Some(Salt::new(salt).map_err(defect)?),
        hash: Some(Output::new(hash).map_err(defect)?),
    };
    Ok(encoded.to_string())
}

/// Whether a match with a bcrypt hash covers the whole password. bcrypt hashes the password and
/// a NUL byte, repeated up to 72 bytes. So bcrypt ignores all bytes after the 72nd byte, and a
/// password with a NUL can be equivalent to another password. A password of 72 bytes is not
/// covered, because the NUL byte that marks its end is ignored.
fn is_covered_by_bcrypt(password: &[u8]) -> bool {
    password.len() < BCRYPT_INPUT_BYTES && !password.contains(&0)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::{
        super::{rules::PasswordPolicy, stored_hash::UnreadableHash},
        *,
    };

    fn argon2id() -> Argon2id {
        argon2id_with(19_456, 2, Peppers::default())
    }

    fn argon2id_with(memory_kib: u32, iterations: u32, peppers: Peppers) -> Argon2id {
        let config = Passwords {
            policy: PasswordPolicy::default(),
            memory_kib,
            iterations,
            parallelism: 1,
            pepper: None,
            threads: 1,
            hashing_memory: u64::MAX,
            queue: 1,
        };
        Argon2id::new(&config, Arc::new(peppers)).expect("the parameters are valid")
    }

    fn peppers(file: &str) -> Peppers {
        let keys = crate::secrets::key_lines::parse(&file.into()).expect("the keys are valid");
        Peppers::from_keys(keys).expect("the peppers are valid")
    }

    /// argon2id with peppers of these ids. The first pepper is used for new hashes.
    fn with_peppers(ids: &[&str]) -> Argon2id {
        let line = |id: &&str| format!("{id} {}\n", STANDARD.encode([id.as_bytes()[0]; 32]));
        let file = ids.iter().map(line).collect::<String>();
        argon2id_with(19_456, 2, peppers(&file))
    }

    fn outcome_of(scheme: &Argon2id, password: &[u8], stored: &str) -> Comparison {
        let stored = StoredHash::parse(stored, &scheme.peppers).expect("the hash is readable");
        scheme.verify(password, &stored).expect("the comparison succeeds")
    }

    #[test]
    fn a_hash_contains_a_random_salt_and_the_parameters() {
        let scheme = argon2id();
        let (first, second) = (
            scheme.hash(b"same").expect("the password is hashed"),
            scheme.hash(b"same").expect("the password is hashed"),
        );
        assert_ne!(first, second);
        assert!(first.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{first}");
        assert_eq!(outcome_of(&scheme, b"same", &first), Comparison::Match);
        assert_eq!(outcome_of(&scheme, b"other", &first), Comparison::Mismatch);
    }

    #[test]
    fn a_hash_with_weaker_parameters_is_outdated() {
        // Less memory than configured, although more iterations.
        let old = argon2id_with(12_288, 3, Peppers::default())
            .hash(b"pw")
            .expect("the password is hashed");
        let result = outcome_of(&argon2id(), b"pw", &old);
        assert_eq!(result, Comparison::OutdatedMatch);
    }

    #[test]
    fn a_hash_with_a_pepper_verifies_only_with_that_pepper() {
        let stored = with_peppers(&["new"]).hash(b"pw").expect("the password is hashed");
        assert!(stored.contains(",keyid="), "{stored}");
        let result = |scheme: Argon2id| outcome_of(&scheme, b"pw", &stored);
        assert_eq!(result(with_peppers(&["new", "old"])), Comparison::Match);
        assert_eq!(result(with_peppers(&["old", "new"])), Comparison::OutdatedMatch);
        for scheme in [with_peppers(&["old"]), argon2id()] {
            let parsed = StoredHash::parse(&stored, &scheme.peppers);
            assert_eq!(parsed.err(), Some(UnreadableHash::Pepper));
        }
        let without_pepper = argon2id().hash(b"pw").expect("the password is hashed");
        let result = outcome_of(&with_peppers(&["new"]), b"pw", &without_pepper);
        assert_eq!(result, Comparison::OutdatedMatch);
    }

    #[test]
    fn a_hash_does_not_verify_with_another_secret_of_the_same_id() {
        let stored = with_peppers(&["aa"]).hash(b"pw").expect("the password is hashed");
        let other_secret = format!("aa {}", STANDARD.encode([0; 32]));
        let other_scheme = argon2id_with(19_456, 2, peppers(&other_secret));
        assert_eq!(outcome_of(&other_scheme, b"pw", &stored), Comparison::Mismatch);
    }

    #[test]
    fn a_match_with_a_bcrypt_hash_is_outdated() {
        let hash = bcrypt::hash_with_salt("pässword", 4, [7; 16]).expect("bcrypt succeeds");
        for version in [bcrypt::Version::TwoA, bcrypt::Version::TwoB, bcrypt::Version::TwoY] {
            let stored = hash.format_for_version(version);
            let scheme = argon2id();
            let result = outcome_of(&scheme, "pässword".as_bytes(), &stored);
            assert_eq!(result, Comparison::OutdatedMatch, "{stored}");
            assert_eq!(outcome_of(&scheme, b"password", &stored), Comparison::Mismatch);
        }
    }

    /// N05: a bcrypt hash covers only the bytes that bcrypt reads: 72 bytes, including the NUL byte
    /// that bcrypt adds. A shorter password is repeated, each time followed by a NUL byte.
    #[test]
    fn a_match_of_a_password_that_bcrypt_reads_in_part_is_not_outdated() {
        let long = "x".repeat(80);
        let scheme = argon2id();
        for (hashed, presented, outcome) in [
            (&long[..71], &long[..71], Comparison::OutdatedMatch),
            (&long[..71], &long[..72], Comparison::Mismatch),
            (&long[..72], &long[..72], Comparison::Match),
            (&long[..72], &long[..71], Comparison::Mismatch),
            (&long, &long[..72], Comparison::Match),
            ("ab", "ab\0ab", Comparison::Match),
            ("ab", "ab\0", Comparison::Mismatch),
        ] {
            let stored =
                bcrypt::hash_with_salt(hashed, 4, [7; 16]).expect("bcrypt succeeds").to_string();
            let result = outcome_of(&scheme, presented.as_bytes(), &stored);
            assert_eq!(result, outcome, "{hashed:?} {presented:?}");
        }
    }
}
