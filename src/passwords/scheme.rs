//! Hash algorithms: argon2id, and bcrypt for imported hashes.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Block, Params, ParamsBuilder, Version,
    password_hash::phc::{Ident, Output, ParamsString, PasswordHash, Salt},
};
use aws_lc_rs::{constant_time::verify_slices_are_equal, rand};

use super::{
    pepper::Peppers,
    stored_hash::{HASH, StoredHash},
};
use crate::{
    config::Passwords,
    error::{Error, Result},
};

/// The result of a comparison.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// The password is right.
    Right,
    /// The password is right, but its hash is weaker than a new one would be: rehash it.
    RightButOutdated,
    /// The password is wrong.
    Wrong,
}

impl Outcome {
    fn of(is_right: bool, to_be_replaced: bool) -> Self {
        match (is_right, to_be_replaced) {
            (false, _) => Self::Wrong,
            (true, false) => Self::Right,
            (true, true) => Self::RightButOutdated,
        }
    }
}

/// Maximum input of bcrypt, in bytes. bcrypt ignores the rest.
const BCRYPT_INPUT: usize = 72;

/// Length of new salts, in bytes (RFC 9106, section 4).
const SALT: usize = 16;

/// argon2id with the configured parameters and pepper. Its memory is reused between hashes.
pub(super) struct Argon2id {
    params: Params,
    peppers: Arc<Peppers>,
    memory: Vec<Block>,
}

impl Argon2id {
    pub(super) fn new(config: &Passwords, peppers: Arc<Peppers>) -> Result<Self> {
        let params = ParamsBuilder::new()
            .m_cost(config.memory_kib)
            .t_cost(config.iterations)
            .p_cost(config.parallelism)
            .keyid(peppers.current())
            .output_len(HASH)
            .build()
            .map_err(|e| Error::defect(format!("argon2 parameters: {e}")))?;
        Ok(Self { params, peppers, memory: Vec::new() })
    }

    /// Hashes a password with a random salt; returns the PHC string.
    pub(super) fn hash(&mut self, password: &[u8]) -> Result<String> {
        let mut salt = [0; SALT];
        rand::fill(&mut salt).map_err(|_| Error::defect("no random bytes"))?;
        let params = self.params.clone();
        let hash = self.derive(password, &salt, &params)?;
        encode(&params, &salt, &hash)
    }

    /// Does the work of a comparison, for a user without a usable hash.
    pub(super) fn dummy_hash(&mut self, password: &[u8]) -> Result<()> {
        let params = self.params.clone();
        self.derive(password, &[0; SALT], &params).map(drop)
    }

    /// Compares a password with a stored hash.
    pub(super) fn verify(&mut self, password: &[u8], kept: &StoredHash) -> Result<Outcome> {
        match kept {
            StoredHash::Argon2id { params, salt, hash } => {
                let found = self.derive(password, salt, params)?;
                let is_right = verify_slices_are_equal(&found, hash.as_bytes()).is_ok();
                Ok(Outcome::of(is_right, self.is_outdated(params)))
            }
            StoredHash::Bcrypt { text, .. } => {
                let is_right = bcrypt::verify(password, text)
                    .map_err(|e| Error::defect(format!("bcrypt: {e}")))?;
                Ok(Outcome::of(is_right, proves_all(password)))
            }
        }
    }

    fn is_outdated(&self, params: &Params) -> bool {
        let today = &self.params;
        params.m_cost() < today.m_cost()
            || params.t_cost() < today.t_cost()
            || params.p_cost() != today.p_cost()
            || params.keyid() != today.keyid()
    }

    pub(super) fn params(&self) -> &Params {
        &self.params
    }

    fn derive(&mut self, password: &[u8], salt: &[u8], params: &Params) -> Result<[u8; HASH]> {
        let pepper = self.peppers.secret(params.keyid());
        let pepper = pepper.ok_or_else(|| Error::defect("a pepper that is not configured"))?;
        let blocks = params.block_count();
        if self.memory.len() < blocks {
            self.memory.resize(blocks, Block::default());
        }
        let mut out = [0; HASH];
        let memory = &mut self.memory[..blocks];
        Argon2::new_with_secret(pepper, Algorithm::Argon2id, Version::V0x13, params.clone())
            .and_then(|argon2| {
                argon2.hash_password_into_with_memory(password, salt, &mut out, memory)
            })
            .map_err(|e| Error::defect(format!("argon2: {e}")))?;
        Ok(out)
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

/// Whether a match with a bcrypt hash proves the whole password. bcrypt hashes the password and
/// a NUL byte, repeated up to 72 bytes. So it ignores bytes after the 72nd, and a password with
/// a NUL can be equivalent to another password.
fn proves_all(password: &[u8]) -> bool {
    password.len() < BCRYPT_INPUT && !password.contains(&0)
}

#[cfg(test)]
mod tests {
    use base64::{Engine, engine::general_purpose::STANDARD};

    use super::{
        super::{rules::PasswordPolicy, stored_hash::UnreadableHash},
        *,
    };

    fn argon2id() -> Argon2id {
        with(19_456, 2, Peppers::default())
    }

    fn with(memory_kib: u32, iterations: u32, peppers: Peppers) -> Argon2id {
        let config = Passwords {
            policy: PasswordPolicy::default(),
            memory_kib,
            iterations,
            parallelism: 1,
            pepper: None,
            threads: 1,
            queue: 1,
        };
        Argon2id::new(&config, Arc::new(peppers)).expect("parameters")
    }

    fn peppers(file: &str) -> Peppers {
        Peppers::of(crate::secrets::key_lines::parse(&file.into()).expect("keys")).expect("peppers")
    }

    /// With peppers of these ids. The first is used for new hashes.
    fn peppered(ids: &[&str]) -> Argon2id {
        let line = |id: &&str| format!("{id} {}\n", STANDARD.encode([id.as_bytes()[0]; 32]));
        let file = ids.iter().map(line).collect::<String>();
        with(19_456, 2, peppers(&file))
    }

    fn verdict(scheme: &mut Argon2id, password: &[u8], kept: &str) -> Outcome {
        let kept = StoredHash::read(kept, &scheme.peppers).expect("readable");
        scheme.verify(password, &kept).expect("verify")
    }

    #[test]
    fn salts_differ_and_parameters_are_in_the_hash() {
        let mut scheme = argon2id();
        let (a, b) = (scheme.hash(b"same").expect("hash"), scheme.hash(b"same").expect("hash"));
        assert_ne!(a, b);
        assert!(a.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{a}");
        assert_eq!(verdict(&mut scheme, b"same", &a), Outcome::Right);
        assert_eq!(verdict(&mut scheme, b"other", &a), Outcome::Wrong);
    }

    #[test]
    fn weaker_parameters_are_outdated() {
        let old = with(12_288, 3, Peppers::default()).hash(b"pw").expect("hash");
        let found = verdict(&mut argon2id(), b"pw", &old);
        assert_eq!(found, Outcome::RightButOutdated);
    }

    #[test]
    fn a_peppered_hash_takes_its_pepper_to_verify() {
        let kept = peppered(&["new"]).hash(b"pw").expect("hash");
        assert!(kept.contains(",keyid="), "{kept}");
        let found = |mut scheme: Argon2id| verdict(&mut scheme, b"pw", &kept);
        assert_eq!(found(peppered(&["new", "old"])), Outcome::Right);
        assert_eq!(found(peppered(&["old", "new"])), Outcome::RightButOutdated);
        for without in [peppered(&["old"]), argon2id()] {
            let read = StoredHash::read(&kept, &without.peppers);
            assert_eq!(read.err(), Some(UnreadableHash::Pepper));
        }
        let without = argon2id().hash(b"pw").expect("hash");
        let found = verdict(&mut peppered(&["new"]), b"pw", &without);
        assert_eq!(found, Outcome::RightButOutdated);
    }

    #[test]
    fn the_secret_and_not_its_name_makes_the_difference() {
        let kept = peppered(&["aa"]).hash(b"pw").expect("hash");
        let other = format!("aa {}", STANDARD.encode([0; 32]));
        let mut other = with(19_456, 2, peppers(&other));
        assert_eq!(verdict(&mut other, b"pw", &kept), Outcome::Wrong);
    }

    #[test]
    fn bcrypt_from_elsewhere_verifies_and_is_outdated() {
        let hash = bcrypt::hash_with_salt("pässword", 4, [7; 16]).expect("bcrypt");
        for version in [bcrypt::Version::TwoA, bcrypt::Version::TwoB, bcrypt::Version::TwoY] {
            let kept = hash.format_for_version(version);
            let mut scheme = argon2id();
            let right = verdict(&mut scheme, "pässword".as_bytes(), &kept);
            assert_eq!(right, Outcome::RightButOutdated, "{kept}");
            assert_eq!(verdict(&mut scheme, b"password", &kept), Outcome::Wrong);
        }
    }

    /// N05: a bcrypt hash proves only what bcrypt reads.
    #[test]
    fn a_password_that_bcrypt_does_not_read_whole_is_right_and_not_outdated() {
        let long = "x".repeat(80);
        let mut scheme = argon2id();
        for (hashed, presented, outcome) in [
            (&long[..71], &long[..71], Outcome::RightButOutdated),
            (&long[..71], &long[..72], Outcome::Wrong),
            (&long[..72], &long[..72], Outcome::Right),
            (&long[..72], &long[..71], Outcome::Wrong),
            (&long, &long[..72], Outcome::Right),
            ("ab", "ab\0ab", Outcome::Right),
            ("ab", "ab\0", Outcome::Wrong),
        ] {
            let kept = bcrypt::hash_with_salt(hashed, 4, [7; 16]).expect("bcrypt").to_string();
            let found = verdict(&mut scheme, presented.as_bytes(), &kept);
            assert_eq!(found, outcome, "{hashed:?} {presented:?}");
        }
    }
}
