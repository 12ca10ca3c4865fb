//! The source of the keys: files or a key service.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, ensure};

use super::{
    TokenKind, files,
    key::{Purpose, SigningKey, VerifyingKey},
    transit::{KeyService, TransitKeys, Version},
};

/// Paths of the PEM files of both key pairs. Each file may have several keys.
#[derive(Clone, Debug)]
pub struct KeyPaths {
    /// Private keys for access tokens.
    pub access_private: PathBuf,
    /// Public keys for access tokens.
    pub access_public: PathBuf,
    /// Private keys for refresh tokens.
    pub refresh_private: PathBuf,
    /// Public keys for refresh tokens.
    pub refresh_public: PathBuf,
}

impl KeyPaths {
    /// The files of private keys and of public keys for a kind of token.
    pub(super) fn for_kind(&self, kind: TokenKind) -> (&Path, &Path) {
        match kind {
            TokenKind::Access => (&self.access_private, &self.access_public),
            TokenKind::Refresh => (&self.refresh_private, &self.refresh_public),
        }
    }
}

/// The configured source of the keys.
#[derive(Clone, Debug)]
pub enum KeySource {
    Files(KeyPaths),
    Transit(TransitKeys),
}

/// A key source with its client, ready to be read.
pub(super) enum Source {
    Files(KeyPaths),
    Transit(Arc<KeyService>),
}

/// The keys for one kind of token: signing keys, oldest first, and all verifying keys.
pub(super) struct Keys {
    pub signing: Vec<Arc<SigningKey>>,
    pub verifying: Vec<Arc<VerifyingKey>>,
}

impl Source {
    pub fn open(source: &KeySource) -> anyhow::Result<Self> {
        Ok(match source {
            KeySource::Files(paths) => Self::Files(paths.clone()),
            KeySource::Transit(keys) => Self::Transit(Arc::new(KeyService::new(keys)?)),
        })
    }

    /// Whether signing needs a key service.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Transit(_))
    }

    /// The name of the source for a kind of token, for error messages.
    pub fn name(&self, kind: TokenKind) -> String {
        match self {
            Self::Files(paths) => {
                let (_, public) = paths.for_kind(kind);
                public.display().to_string()
            }
            Self::Transit(service) => service.keys.name(kind).to_owned(),
        }
    }

    /// Reads the keys for a kind of token. Reuses the values of keys that are also in `old`.
    pub fn read(
        &self,
        kind: TokenKind,
        purpose: Purpose<'_>,
        old: Option<&Keys>,
    ) -> anyhow::Result<Keys> {
        match self {
            Self::Files(paths) => {
                let (private, public) = paths.for_kind(kind);
                read_files(private, public, purpose, old)
            }
            Self::Transit(service) => {
                let name = service.keys.name(kind);
                read_service(service, name, purpose, old)
                    .with_context(|| format!("the key {name} of the key service can't be used"))
            }
        }
    }
}

impl Keys {
    /// The verifying key with this id.
    pub fn find_verifying_key(&self, kid: &str) -> Option<&Arc<VerifyingKey>> {
        self.verifying.iter().find(|key| key.kid == kid)
    }
}

fn read_files(
    private: &Path,
    public: &Path,
    purpose: Purpose<'_>,
    old: Option<&Keys>,
) -> anyhow::Result<Keys> {
    let unusable_file = |path: &Path| format!("{} can't be used", path.display());
    let blocks = files::read(private)?;
    let signing = blocks.iter().map(|block| SigningKey::read(block).map(Arc::new));
    let signing: Vec<_> =
        signing.collect::<anyhow::Result<_>>().with_context(|| unusable_file(private))?;
    let verifying = files::read(public)?;
    let verifying = verifying.iter().map(|block| {
        let key = VerifyingKey::read(block, purpose)?;
        Ok(old
            .and_then(|old| old.find_verifying_key(&key.kid))
            .cloned()
            .unwrap_or_else(|| Arc::new(key)))
    });
    let verifying =
        verifying.collect::<anyhow::Result<_>>().with_context(|| unusable_file(public))?;
    let keys = Keys { signing, verifying };
    for key in &keys.signing {
        ensure!(
            keys.find_verifying_key(&key.kid).is_some(),
            "{} does not have the public key of {}",
            public.display(),
            private.display()
        );
    }
    Ok(keys)
}

fn read_service(
    service: &Arc<KeyService>,
    name: &str,
    purpose: Purpose<'_>,
    old: Option<&Keys>,
) -> anyhow::Result<Keys> {
    let mut keys = Keys { signing: Vec::new(), verifying: Vec::new() };
    for version in service.versions(name)? {
        let public = VerifyingKey::read(&version.public, purpose)?;
        if version.can_sign {
            keys.signing.push(signing_key(service, name, &version, &public, old)?);
        }
        let old_key = old.and_then(|old| old.find_verifying_key(&public.kid)).cloned();
        keys.verifying.push(old_key.unwrap_or_else(|| Arc::new(public)));
    }
    ensure!(!keys.signing.is_empty(), "no version of the key may sign");
    Ok(keys)
}

/// The signing key of a version. Reuses the key in `old`, so that the root secret of a version is
/// requested only once.
fn signing_key(
    service: &Arc<KeyService>,
    name: &str,
    version: &Version,
    public: &VerifyingKey,
    old: Option<&Keys>,
) -> anyhow::Result<Arc<SigningKey>> {
    let is_same = |key: &&Arc<SigningKey>| {
        key.kid == public.kid && key.start_time == version.public.start_time
    };
    match old.and_then(|old| old.signing.iter().find(is_same)) {
        Some(old_key) => Ok(old_key.clone()),
        None => SigningKey::in_transit(service, name, version, public).map(Arc::new),
    }
}
