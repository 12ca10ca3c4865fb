//! Generates keys in PEM files, and rotates them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, bail};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use jsonwebtoken::Algorithm;
use time::OffsetDateTime;

use super::{
    KeyPaths, KeySource, TokenKind,
    files::{self, KeyBlock},
    key::SigningKey,
};
use crate::clock;

/// Retention of a private key after its replacement. During this time, secrets derived from the key
/// still open consistency tokens, and a repeated refresh is signed again with the same key.
const PRIVATE_KEY_RETENTION: Duration = Duration::from_hours(24);

/// The algorithm of a key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum KeyAlgorithm {
    /// RS256 with 3072 bits.
    Rs256,
    /// ES256 with P-256.
    Es256,
    /// `EdDSA` with Ed25519.
    EdDsa,
}

/// The paths of both key pairs in a folder.
#[must_use]
pub fn paths(dir: &Path) -> KeyPaths {
    let file = |name: &str| -> PathBuf { dir.join(name) };
    KeyPaths {
        access_private: file("access.pem"),
        access_public: file("access.pub.pem"),
        refresh_private: file("refresh.pem"),
        refresh_public: file("refresh.pub.pem"),
    }
}

/// The key pairs in a folder, as the source of a keyring.
#[must_use]
pub fn source(dir: &Path) -> KeySource {
    KeySource::Files(paths(dir))
}

/// Generates both key pairs in a folder, unless all files exist. Only their owner can read the
/// private keys. Returns whether keys were generated.
///
/// # Errors
/// When only some of the files exist (keys are never overwritten), or when a file can't be
/// written.
pub fn ensure(dir: &Path, algorithm: KeyAlgorithm) -> anyhow::Result<bool> {
    let paths = paths(dir);
    // The check comes before the lock, because a process that may only read the folder can't create
    // keys. If only some files exist, another process may be writing them, so this process waits
    // for the lock.
    if matches!(all_exist(&paths), Ok(true)) {
        return Ok(false);
    }
    fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
    let _lock = lock(dir)?;
    if all_exist(&paths)? {
        return Ok(false);
    }
    for files in KeyFiles::both(&paths) {
        let (private, public) = generate(algorithm, None)?;
        files.write_public(&[public])?;
        files.write_private(&[private])?;
    }
    Ok(true)
}

/// Whether all files exist; an error when only some of the files exist.
fn all_exist(paths: &KeyPaths) -> anyhow::Result<bool> {
    let paths = KeyFiles::both(paths).map(|files| [files.private, files.public]).concat();
    let missing_count = paths.iter().filter(|path| !path.exists()).count();
    match paths.iter().find(|path| path.exists()) {
        Some(path) if missing_count > 0 => {
            bail!("{} is there without the other keys; move it away first", path.display())
        }
        existing_path => Ok(existing_path.is_some()),
    }
}

/// Adds a key for each kind of token. The key verifies from now on and signs from `start_time` on.
/// Removes expired keys. Returns whether a key was added: no key is added for a kind of token while
/// the start time of another key of that kind is in the future.
///
/// # Errors
/// When a file can't be read, is invalid, or can't be written.
pub fn rotate(
    dir: &Path,
    algorithm: Option<KeyAlgorithm>,
    start_time: OffsetDateTime,
    lifetimes: TokenLifetimes,
) -> anyhow::Result<bool> {
    let _lock = lock(dir)?;
    let mut has_added_key = false;
    for (files, lifetime) in KeyFiles::both(&paths(dir)).into_iter().zip(lifetimes.both()) {
        files.retire(lifetime)?;
        let (mut private, mut public) = files.read()?;
        let now = clock::now();
        if private.iter().any(|key| key.start_time.is_some_and(|start_time| start_time > now)) {
            continue;
        }
        let algorithm = algorithm.map_or_else(|| newest_algorithm(&private), Ok)?;
        let (new_private, new_public) = generate(algorithm, Some(start_time))?;
        private.push(new_private);
        public.push(new_public);
        // A crash between the two writes leaves an unused public key, which has no effect.
        files.write_public(&public)?;
        files.write_private(&private)?;
        has_added_key = true;
    }
    Ok(has_added_key)
}

/// Replaces all keys by new keys. Tokens signed by the old keys are no longer valid.
///
/// # Errors
/// When a file can't be written.
pub fn replace(dir: &Path, algorithm: Option<KeyAlgorithm>) -> anyhow::Result<()> {
    let _lock = lock(dir)?;
    for key_files in KeyFiles::both(&paths(dir)) {
        let algorithm_in_use = || newest_algorithm(&files::read(key_files.private)?);
        let algorithm = algorithm.map_or_else(algorithm_in_use, Ok)?;
        let (private, public) = generate(algorithm, None)?;
        key_files.write_private(&[private])?;
        key_files.write_public(&[public])?;
    }
    Ok(())
}

/// Removes private keys that were replaced more than a day ago, and public keys whose tokens
/// have all expired.
///
/// # Errors
/// When a file can't be read, is invalid, or can't be written.
pub fn retire(dir: &Path, lifetimes: TokenLifetimes) -> anyhow::Result<()> {
    let _lock = lock(dir)?;
    for (files, lifetime) in KeyFiles::both(&paths(dir)).into_iter().zip(lifetimes.both()) {
        files.retire(lifetime)?;
    }
    Ok(())
}

/// Lifetimes of tokens.
#[derive(Clone, Copy)]
pub struct TokenLifetimes {
    pub access: Duration,
    pub refresh: Duration,
}

impl TokenLifetimes {
    fn both(self) -> [Duration; 2] {
        [self.access, self.refresh]
    }
}

/// The two files of the keys for one kind of token.
struct KeyFiles<'a> {
    private: &'a Path,
    public: &'a Path,
}

impl<'a> KeyFiles<'a> {
    fn both(paths: &'a KeyPaths) -> [Self; 2] {
        [TokenKind::Access, TokenKind::Refresh].map(|kind| {
            let (private, public) = paths.for_kind(kind);
            Self { private, public }
        })
    }

    fn read(&self) -> anyhow::Result<(Vec<KeyBlock>, Vec<KeyBlock>)> {
        Ok((files::read(self.private)?, files::read(self.public)?))
    }

    fn retire(&self, lifetime: Duration) -> anyhow::Result<()> {
        let (private, public) = self.read()?;
        // Private keys are removed first, because the server refuses a private key without its
        // public key.
        if let Some(remaining) = remaining_keys(private, PRIVATE_KEY_RETENTION)? {
            self.write_private(&remaining)?;
        }
        if let Some(remaining) = remaining_keys(public, lifetime.max(PRIVATE_KEY_RETENTION))? {
            self.write_public(&remaining)?;
        }
        Ok(())
    }

    fn write_private(&self, keys: &[KeyBlock]) -> anyhow::Result<()> {
        write_keys(self.private, 0o600, keys)
    }

    fn write_public(&self, keys: &[KeyBlock]) -> anyhow::Result<()> {
        write_keys(self.public, 0o644, keys)
    }
}

/// The keys, oldest first, without the keys whose successor started to sign at least `retention`
/// ago; `None` when no key is removed.
fn remaining_keys(
    keys: Vec<KeyBlock>,
    retention: Duration,
) -> anyhow::Result<Option<Vec<KeyBlock>>> {
    let latest_start = clock::now() - retention;
    let started_long_ago = |key: &KeyBlock| key.start_time.is_some_and(|time| time <= latest_start);
    // The keys before this key were replaced at least `retention` ago.
    let first_remaining = keys.iter().rposition(started_long_ago).unwrap_or(0);
    anyhow::ensure!(
        keys.is_sorted_by_key(|key| key.start_time),
        "the keys in a file must be sorted by start time"
    );
    Ok((first_remaining > 0).then(|| keys.into_iter().skip(first_remaining).collect()))
}

fn generate(
    algorithm: KeyAlgorithm,
    start_time: Option<OffsetDateTime>,
) -> anyhow::Result<(KeyBlock, KeyBlock)> {
    let key_pair = || -> Result<(Vec<u8>, Vec<u8>), aws_lc_rs::error::Unspecified> {
        Ok(match algorithm {
            KeyAlgorithm::Rs256 => {
                let pair = RsaKeyPair::generate(KeySize::Rsa3072)?;
                let private: Pkcs8V1Der<'_> = pair.as_der()?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                (private.as_ref().to_vec(), public.as_ref().to_vec())
            }
            KeyAlgorithm::Es256 => {
                let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                (pair.to_pkcs8v1()?.as_ref().to_vec(), public.as_ref().to_vec())
            }
            KeyAlgorithm::EdDsa => {
                let pair = Ed25519KeyPair::generate()?;
                let public: PublicKeyX509Der<'_> = pair.public_key().as_der()?;
                (pair.to_pkcs8v1()?.as_ref().to_vec(), public.as_ref().to_vec())
            }
        })
    };
    let (private, public) = key_pair().ok().context("can't generate a key")?;
    let block = |tag: &str, der| KeyBlock::new(start_time, pem::Pem::new(tag, der));
    Ok((block("PRIVATE KEY", private), block("PUBLIC KEY", public)))
}

/// The algorithm of the newest of these private keys, which are sorted by age.
fn newest_algorithm(private: &[KeyBlock]) -> anyhow::Result<KeyAlgorithm> {
    let newest = private.last().context("there is no key")?;
    Ok(match SigningKey::read(newest)?.alg {
        Algorithm::ES256 => KeyAlgorithm::Es256,
        Algorithm::EdDSA => KeyAlgorithm::EdDsa,
        _ => KeyAlgorithm::Rs256,
    })
}

/// Locks the folder, so that one process at a time creates or rotates keys.
fn lock(dir: &Path) -> anyhow::Result<File> {
    crate::secrets::files::lock(dir).with_context(|| format!("can't read {}", dir.display()))
}

fn write_keys(path: &Path, mode: u32, keys: &[KeyBlock]) -> anyhow::Result<()> {
    let text = files::render(keys)?;
    crate::secrets::files::replace(path, mode, text.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))
}
