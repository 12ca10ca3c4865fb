//! Master keys, which wrap (encrypt) the data keys.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use arc_swap::ArcSwap;
use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    rand,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretString, zeroize::Zeroizing};
use serde::Deserialize;
use serde_json::json;

use super::cipher::KEY;
use crate::{
    ids::TenantId,
    secrets::{
        files,
        key_lines::{self, KeyLine},
        transit::{Transit, TransitAddress},
    },
};

/// The value of [`Wrapped::by`] for a data key that is stored in plain text.
const NONE: &str = "none";

/// The configured sources of master keys. If a key service is configured, it wraps new data keys;
/// otherwise the first key in the file wraps them. Without both, new data keys are not wrapped.
#[derive(Clone, Debug, Default)]
pub struct MasterSource {
    /// Path of the file of master keys.
    pub file: Option<PathBuf>,
    /// The address of the key service, and the name of the master key there.
    pub service: Option<(TransitAddress, String)>,
}

/// The master keys, from a file, from a key service, or both.
pub struct MasterKeys {
    file: Option<KeyFile>,
    service: Option<(Transit, String)>,
}

struct KeyFile {
    path: PathBuf,
    keys: ArcSwap<Vec<KeyLine>>,
}

/// A data key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Wrapped {
    /// The encrypted data key; the plain data key when `by` is `none`.
    pub bytes: Vec<u8>,
    /// The master key that wraps the data key: `file:<id>`, `transit:<name>:v<version>` or `none`.
    pub by: String,
}

/// A plain data key. Its memory is zeroed on drop.
pub(super) type DataKey = Zeroizing<[u8; KEY]>;

#[derive(Deserialize)]
struct Ciphertext {
    ciphertext: String,
}

#[derive(Deserialize)]
struct Plaintext {
    plaintext: SecretString,
}

impl MasterKeys {
    /// Reads the file of master keys. The key service is not called yet.
    ///
    /// # Errors
    /// When the file has no keys, or when the CA certificate of the key service can't be read.
    pub fn load(source: &MasterSource) -> anyhow::Result<Self> {
        let file = source.file.as_deref().map(KeyFile::load).transpose()?;
        let service = match &source.service {
            Some((address, name)) => Some((Transit::new(address)?, name.clone())),
            None => None,
        };
        Ok(Self { file, service })
    }

    /// Whether a master key is configured, so that data keys are wrapped.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.file.is_some() || self.service.is_some()
    }

    /// Reads the file again; returns whether its keys changed.
    ///
    /// # Errors
    /// When the file can't be read. Then the keys in memory stay in use.
    pub fn reload(&self) -> anyhow::Result<bool> {
        self.file.as_ref().map_or(Ok(false), KeyFile::reload)
    }

    /// Wraps a tenant's data key by the current master key. Blocks the thread.
    pub(super) fn wrap(&self, tenant: TenantId, key: &DataKey) -> anyhow::Result<Wrapped> {
        if let Some((service, name)) = &self.service {
            return wrap_by_service(service, name, tenant, key);
        }
        let Some(file) = &self.file else {
            return Ok(Wrapped { bytes: key.to_vec(), by: NONE.to_owned() });
        };
        let keys = file.keys.load();
        let first = keys.first().context("there is no master key")?;
        let mut bytes = key.to_vec();
        let nonce = cipher(first)?
            .seal_in_place_append_tag(Aad::from(associated(tenant)), &mut bytes)
            .map_err(|_| anyhow::anyhow!("a data key can't be wrapped"))?;
        bytes.splice(0..0, nonce.as_ref().iter().copied());
        Ok(Wrapped { bytes, by: format!("file:{}", first.id) })
    }

    /// Unwraps a tenant's data key. Blocks the thread.
    pub(super) fn unwrap(&self, tenant: TenantId, wrapped: &Wrapped) -> anyhow::Result<DataKey> {
        let by = &wrapped.by;
        let plain = match by.split_once(':') {
            None if by == NONE => Zeroizing::new(wrapped.bytes.clone()),
            Some(("file", id)) => self.unwrap_by_file(tenant, id, &wrapped.bytes)?,
            Some(("transit", name)) => self.unwrap_by_service(tenant, name, &wrapped.bytes)?,
            _ => bail!("it is wrapped by {by}, which this version does not know"),
        };
        let key = plain.as_slice().try_into().ok().context("it has another length")?;
        Ok(Zeroizing::new(key))
    }

    fn unwrap_by_file(
        &self,
        tenant: TenantId,
        id: &str,
        bytes: &[u8],
    ) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let missing = || format!("it is wrapped by {id}, which MASTER_KEY_PATH does not have");
        let file = self.file.as_ref().with_context(missing)?;
        let has = |keys: &[KeyLine]| keys.iter().any(|key| key.id == id);
        if !has(&file.keys.load()) {
            // Another replica may already use a newer file.
            file.reload()?;
        }
        let keys = file.keys.load();
        let master = keys.iter().find(|key| key.id == id).with_context(missing)?;
        let (nonce, secret) = bytes.split_at_checked(NONCE_LEN).context("it is cut short")?;
        let mut plain = Zeroizing::new(secret.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok().context("it is cut short")?;
        let plaintext = cipher(master)?
            .open_in_place(nonce, Aad::from(associated(tenant)), &mut plain)
            .map_err(|_| anyhow::anyhow!("the master key {id} does not open it"))?;
        let length = plaintext.len();
        plain.truncate(length);
        Ok(plain)
    }

    fn unwrap_by_service(
        &self,
        tenant: TenantId,
        by: &str,
        bytes: &[u8],
    ) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let (service, _) = self.service.as_ref().with_context(|| {
            format!("it is wrapped by {by} of a key service, and MASTER_TRANSIT_KEY is off")
        })?;
        let name = by.rsplit_once(':').map_or(by, |(name, _)| name);
        let ciphertext = std::str::from_utf8(bytes).ok().context("it is not a ciphertext")?;
        let body = json!({
            "ciphertext": ciphertext,
            "associated_data": BASE64_STANDARD.encode(associated(tenant)),
        });
        let Plaintext { plaintext } = service.post(&["decrypt", name], &body)?;
        let plain = BASE64_STANDARD.decode(plaintext.expose_secret());
        plain.map(Zeroizing::new).ok().context("the response of the key service is not base64")
    }
}

impl KeyFile {
    fn load(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: path.to_owned(), keys: ArcSwap::from_pointee(read(path)?) })
    }

    fn reload(&self) -> anyhow::Result<bool> {
        let keys = read(&self.path)?;
        let is_unchanged = {
            let old = self.keys.load();
            let is_same = |(a, b): (&KeyLine, &KeyLine)| {
                a.id == b.id && a.key.expose_secret() == b.key.expose_secret()
            };
            old.len() == keys.len() && old.iter().zip(&keys).all(is_same)
        };
        if !is_unchanged {
            self.keys.store(Arc::new(keys));
        }
        Ok(!is_unchanged)
    }
}

/// Reads the master keys of a file. The first key is the current master key.
fn read(path: &Path) -> anyhow::Result<Vec<KeyLine>> {
    let keys = key_lines::read(path)?;
    for key in &keys {
        ensure!(
            key.key.expose_secret().len() == KEY,
            "the key {} in {} must have {KEY} bytes",
            key.id,
            path.display()
        );
    }
    Ok(keys)
}

/// Creates a file with a first key and returns the key's id; `None` when the file exists.
///
/// # Errors
/// When the file can't be written.
pub fn ensure_key(path: &Path) -> anyhow::Result<Option<String>> {
    if path.exists() {
        return Ok(None);
    }
    let _lock = lock(path)?;
    if path.exists() { Ok(None) } else { prepend_key(path, "").map(Some) }
}

/// Adds a new current key at the front of a file, and returns its id.
///
/// # Errors
/// When the file can't be read, has no keys, or can't be written.
pub fn add_key(path: &Path) -> anyhow::Result<String> {
    // Without the lock, the second of two concurrent writers would overwrite the key of the first
    // writer. Every data key wrapped by the overwritten key would be lost.
    let _lock = lock(path)?;
    read(path)?;
    let old = fs::read_to_string(path).map(Zeroizing::new);
    prepend_key(path, &old.with_context(|| format!("can't read {}", path.display()))?)
}

fn lock(path: &Path) -> anyhow::Result<fs::File> {
    let dir = files::folder(path);
    files::lock(dir).with_context(|| format!("can't read {}", dir.display()))
}

fn prepend_key(path: &Path, old: &str) -> anyhow::Result<String> {
    let (mut id, mut key) = ([0; 4], Zeroizing::new([0; KEY]));
    let filled = rand::fill(&mut id).and_then(|()| rand::fill(key.as_mut_slice()));
    filled.map_err(|_| anyhow::anyhow!("no random bytes"))?;
    let id = format!("{:08x}", u32::from_be_bytes(id));
    let line = Zeroizing::new(format!("{id} {}\n", BASE64_STANDARD.encode(*key)));
    let content = Zeroizing::new([line.as_str(), old].concat());
    files::replace(path, 0o600, content.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))?;
    Ok(id)
}

fn wrap_by_service(
    service: &Transit,
    name: &str,
    tenant: TenantId,
    key: &DataKey,
) -> anyhow::Result<Wrapped> {
    let plain = Zeroizing::new(BASE64_STANDARD.encode(**key));
    let body = json!({
        "plaintext": plain.as_str(),
        "associated_data": BASE64_STANDARD.encode(associated(tenant)),
    });
    let Ciphertext { ciphertext } = service.post(&["encrypt", name], &body)?;
    let version = ciphertext.strip_prefix("vault:").and_then(|rest| rest.split_once(':'));
    let (version, _) = version.context("the response of the key service is not a ciphertext")?;
    let by = format!("transit:{name}:{version}");
    Ok(Wrapped { bytes: ciphertext.into_bytes(), by })
}

fn cipher(master: &KeyLine) -> anyhow::Result<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, master.key.expose_secret())
        .map_err(|_| anyhow::anyhow!("the master key {} can't be used", master.id))
}

/// The associated data, which binds a wrapped data key to its tenant.
fn associated(tenant: TenantId) -> Vec<u8> {
    [b"tenantry data key of ", tenant.0.as_bytes().as_slice()].concat()
}
