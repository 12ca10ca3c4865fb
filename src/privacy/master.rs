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

use super::cipher::KEY_LENGTH;
use crate::{
    ids::TenantId,
    secrets::{
        files,
        key_lines::{self, KeyLine},
        transit::{Transit, TransitConnection},
    },
};

/// The value of [`WrappedKey::by`] for a data key that is stored in plain text.
const NOT_WRAPPED: &str = "none";

/// The configured sources of master keys. If a key service is configured, it wraps new data keys;
/// otherwise the first key in the file wraps them. With neither, new data keys are not wrapped.
#[derive(Clone, Debug, Default)]
pub struct MasterSource {
    /// Path of the file of master keys.
    pub file: Option<PathBuf>,
    /// The connection to the key service, and the name of the master key there.
    pub service: Option<(TransitConnection, String)>,
}

/// The master keys, from a file, from a key service, or both.
pub struct MasterKeys {
    file: Option<KeyFile>,
    /// The client of the key service, and the name of the master key there.
    service: Option<(Transit, String)>,
}

/// A file of master keys, and the keys that were last read from the file.
struct KeyFile {
    path: PathBuf,
    keys: ArcSwap<Vec<KeyLine>>,
}

/// The keys of a changed file, which are not in use yet.
pub(super) struct ChangedKeys(Vec<KeyLine>);

/// A data key as it is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct WrappedKey {
    /// The encrypted data key; the plain data key when `by` is `none`.
    pub bytes: Vec<u8>,
    /// The master key that wraps the data key: `file:<id>`, `transit:<name>:v<version>` or `none`.
    pub by: String,
}

/// A plain data key. Its memory is zeroed on drop.
pub(super) type DataKey = Zeroizing<[u8; KEY_LENGTH]>;

/// The response of the key service to a request to encrypt.
#[derive(Deserialize)]
struct Ciphertext {
    ciphertext: String,
}

/// The response of the key service to a request to decrypt.
#[derive(Deserialize)]
struct Plaintext {
    plaintext: SecretString,
}

impl MasterKeys {
    /// Reads the file of master keys. The key service is not called yet.
    ///
    /// # Errors
    /// When the file can't be read or has no keys, or when the CA certificate of the key service
    /// can't be read.
    pub fn load(source: &MasterSource) -> anyhow::Result<Self> {
        let file = source.file.as_deref().map(KeyFile::load).transpose()?;
        let service = match &source.service {
            Some((connection, name)) => Some((Transit::new(connection)?, name.clone())),
            None => None,
        };
        Ok(Self { file, service })
    }

    /// Whether a master key is configured, so that data keys are wrapped.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.file.is_some() || self.service.is_some()
    }

    /// Reads the file again; `None` when its keys have not changed.
    ///
    /// # Errors
    /// When the file can't be read or has no keys.
    pub(super) fn read_changed(&self) -> anyhow::Result<Option<ChangedKeys>> {
        self.file.as_ref().map_or(Ok(None), KeyFile::read_changed)
    }

    /// Uses changed keys from now on. `stored_key` is a stored data key of `tenant`. If a key of
    /// the file wraps it, the changed keys must be able to unwrap it.
    ///
    /// # Errors
    /// When the changed keys can't unwrap `stored_key`. Then the old keys stay in use, because a
    /// data key wrapped by a wrong master key could never be unwrapped later.
    pub(super) fn adopt(
        &self,
        keys: ChangedKeys,
        tenant: TenantId,
        stored_key: Option<&WrappedKey>,
    ) -> anyhow::Result<()> {
        if let Some(stored_key) = stored_key
            && let Some(id) = stored_key.by.strip_prefix("file:")
        {
            unwrap_by_keys(&keys.0, tenant, id, &stored_key.bytes)?;
        }
        if let Some(file) = &self.file {
            file.keys.store(Arc::new(keys.0));
        }
        Ok(())
    }

    /// Wraps a tenant's data key by the current master key. Blocks the thread.
    pub(super) fn wrap(&self, tenant: TenantId, key: &DataKey) -> anyhow::Result<WrappedKey> {
        if let Some((service, name)) = &self.service {
            return wrap_by_service(service, name, tenant, key);
        }
        let Some(file) = &self.file else {
            return Ok(WrappedKey { bytes: key.to_vec(), by: NOT_WRAPPED.to_owned() });
        };
        let keys = file.keys.load();
        let master = keys.first().context("there is no master key")?;
        let mut bytes = key.to_vec();
        let nonce = master_cipher(master)?
            .seal_in_place_append_tag(Aad::from(associated_data(tenant)), &mut bytes)
            .map_err(|_| anyhow::anyhow!("a data key can't be wrapped"))?;
        // The nonce is stored before the ciphertext.
        bytes.splice(0..0, nonce.as_ref().iter().copied());
        Ok(WrappedKey { bytes, by: format!("file:{}", master.id) })
    }

    /// Unwraps a tenant's data key. Blocks the thread.
    pub(super) fn unwrap(&self, tenant: TenantId, wrapped: &WrappedKey) -> anyhow::Result<DataKey> {
        let by = &wrapped.by;
        let plain = match by.split_once(':') {
            None if by == NOT_WRAPPED => Zeroizing::new(wrapped.bytes.clone()),
            Some(("file", id)) => self.unwrap_by_file(tenant, id, &wrapped.bytes)?,
            Some(("transit", name_and_version)) => {
                self.unwrap_by_service(tenant, name_and_version, &wrapped.bytes)?
            }
            _ => bail!("the data key is wrapped by {by}, which this version does not know"),
        };
        let key = plain.as_slice().try_into();
        let key = key.ok().with_context(|| format!("the data key must have {KEY_LENGTH} bytes"))?;
        Ok(Zeroizing::new(key))
    }

    fn unwrap_by_file(
        &self,
        tenant: TenantId,
        id: &str,
        bytes: &[u8],
    ) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let file = self.file.as_ref().with_context(|| no_master_key(id))?;
        if !file.keys.load().iter().any(|key| key.id == id) {
            // The file may have changed since it was read: another replica may already wrap data
            // keys by a new key.
            if let Some(keys) = file.read_changed()? {
                let plain = unwrap_by_keys(&keys.0, tenant, id, bytes)?;
                file.keys.store(Arc::new(keys.0));
                return Ok(plain);
            }
        }
        unwrap_by_keys(&file.keys.load(), tenant, id, bytes)
    }

    fn unwrap_by_service(
        &self,
        tenant: TenantId,
        name_and_version: &str,
        bytes: &[u8],
    ) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let (service, _) = self.service.as_ref().with_context(|| {
            format!(
                "the data key is wrapped by {name_and_version} of a key service, but \
                 MASTER_TRANSIT_KEY is off"
            )
        })?;
        let name = name_and_version.rsplit_once(':').map_or(name_and_version, |(name, _)| name);
        let ciphertext = std::str::from_utf8(bytes).ok();
        let ciphertext = ciphertext.context("the wrapped data key is not UTF-8")?;
        let body = json!({
            "ciphertext": ciphertext,
            "associated_data": BASE64_STANDARD.encode(associated_data(tenant)),
        });
        let Plaintext { plaintext } = service.post(&["decrypt", name], &body)?;
        let plain = BASE64_STANDARD.decode(plaintext.expose_secret());
        plain.map(Zeroizing::new).ok().context("the response of the key service is not base64")
    }
}

impl KeyFile {
    fn load(path: &Path) -> anyhow::Result<Self> {
        Ok(Self { path: path.to_owned(), keys: ArcSwap::from_pointee(read_keys(path)?) })
    }

    fn read_changed(&self) -> anyhow::Result<Option<ChangedKeys>> {
        let keys = read_keys(&self.path)?;
        let old = self.keys.load();
        let is_same = |(a, b): (&KeyLine, &KeyLine)| {
            a.id == b.id && a.key.expose_secret() == b.key.expose_secret()
        };
        let is_unchanged = old.len() == keys.len() && old.iter().zip(&keys).all(is_same);
        Ok((!is_unchanged).then_some(ChangedKeys(keys)))
    }
}

/// Unwraps a data key that the key `id` of a file wraps.
fn unwrap_by_keys(
    keys: &[KeyLine],
    tenant: TenantId,
    id: &str,
    bytes: &[u8],
) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let master = keys.iter().find(|key| key.id == id).with_context(|| no_master_key(id))?;
    let too_short = "the wrapped data key is too short";
    let (nonce, ciphertext) = bytes.split_at_checked(NONCE_LEN).context(too_short)?;
    let mut plain = Zeroizing::new(ciphertext.to_vec());
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok().context(too_short)?;
    let plaintext = master_cipher(master)?
        .open_in_place(nonce, Aad::from(associated_data(tenant)), &mut plain)
        .map_err(|_| anyhow::anyhow!("the master key {id} does not open it"))?;
    let length = plaintext.len();
    plain.truncate(length);
    Ok(plain)
}

fn no_master_key(id: &str) -> String {
    format!("the data key is wrapped by {id}, which MASTER_KEY_PATH does not have")
}

/// Reads the master keys of a file. The first key is the current master key.
fn read_keys(path: &Path) -> anyhow::Result<Vec<KeyLine>> {
    let keys = key_lines::read(path)?;
    for key in &keys {
        ensure!(
            key.key.expose_secret().len() == KEY_LENGTH,
            "the key {} in {} must have {KEY_LENGTH} bytes",
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
    let _lock = lock_folder_of(path)?;
    if path.exists() { Ok(None) } else { prepend_key(path, "").map(Some) }
}

/// Adds a key at the start of a file, which makes it the current key, and returns the key's id.
///
/// # Errors
/// When the file can't be read, has no keys, or can't be written.
pub fn add_key(path: &Path) -> anyhow::Result<String> {
    // Without the lock, the second of two concurrent writers would overwrite the key of the first
    // writer. Every data key wrapped by the overwritten key would be lost.
    let _lock = lock_folder_of(path)?;
    read_keys(path)?;
    let old_content = fs::read_to_string(path).map(Zeroizing::new);
    prepend_key(path, &old_content.with_context(|| format!("can't read {}", path.display()))?)
}

/// Locks the folder of a file, so that no other process changes the file.
fn lock_folder_of(path: &Path) -> anyhow::Result<fs::File> {
    let folder = files::folder(path);
    files::lock(folder).with_context(|| format!("can't read {}", folder.display()))
}

/// Adds a new random key before the content of a file, and returns the key's id.
fn prepend_key(path: &Path, old_content: &str) -> anyhow::Result<String> {
    let (mut id, mut key) = ([0; 4], Zeroizing::new([0; KEY_LENGTH]));
    let filled = rand::fill(&mut id).and_then(|()| rand::fill(key.as_mut_slice()));
    filled.map_err(|_| anyhow::anyhow!("no random bytes"))?;
    let id = format!("{:08x}", u32::from_be_bytes(id));
    let line = Zeroizing::new(format!("{id} {}\n", BASE64_STANDARD.encode(*key)));
    let content = Zeroizing::new([line.as_str(), old_content].concat());
    files::replace(path, 0o600, content.as_bytes())
        .with_context(|| format!("can't write {}", path.display()))?;
    Ok(id)
}

fn wrap_by_service(
    service: &Transit,
    name: &str,
    tenant: TenantId,
    key: &DataKey,
) -> anyhow::Result<WrappedKey> {
    let plain = Zeroizing::new(BASE64_STANDARD.encode(**key));
    let body = json!({
        "plaintext": plain.as_str(),
        "associated_data": BASE64_STANDARD.encode(associated_data(tenant)),
    });
    let Ciphertext { ciphertext } = service.post(&["encrypt", name], &body)?;
    // The service returns `vault:v<version>:<base64>`.
    let version = ciphertext.strip_prefix("vault:").and_then(|rest| rest.split_once(':'));
    let (version, _) = version.context("the response of the key service is not a ciphertext")?;
    let by = format!("transit:{name}:{version}");
    Ok(WrappedKey { bytes: ciphertext.into_bytes(), by })
}

fn master_cipher(master: &KeyLine) -> anyhow::Result<RandomizedNonceKey> {
    RandomizedNonceKey::new(&AES_256_GCM, master.key.expose_secret())
        .map_err(|_| anyhow::anyhow!("the master key {} can't be used", master.id))
}

/// The associated data of the encryption, which binds a wrapped data key to its tenant.
fn associated_data(tenant: TenantId) -> Vec<u8> {
    [b"tenantry data key of ", tenant.0.as_bytes().as_slice()].concat()
}
