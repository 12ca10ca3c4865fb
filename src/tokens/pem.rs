//! Makes key pairs as PEM files.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};

use super::KeyPaths;

/// The files of both key pairs in a folder.
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

/// Makes both RSA 3072 key pairs (128-bit security) in a folder, unless they are
/// all there; private keys are readable by their owner alone. Says whether it
/// made them.
///
/// # Errors
/// When some are there and some are not (keys are never overwritten), or they
/// can't be written.
pub fn ensure(dir: &Path) -> anyhow::Result<bool> {
    let paths = paths(dir);
    let files = [
        &paths.access_private,
        &paths.access_public,
        &paths.refresh_private,
        &paths.refresh_public,
    ];
    if files.iter().all(|file| file.exists()) {
        return Ok(false);
    }
    if let Some(file) = files.iter().find(|file| file.exists()) {
        bail!("{} is there without the other keys; move it away first", file.display());
    }
    std::fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
    write_pair(&paths.access_private, &paths.access_public)?;
    write_pair(&paths.refresh_private, &paths.refresh_public)?;
    Ok(true)
}

fn write_pair(private: &Path, public: &Path) -> anyhow::Result<()> {
    let pair = KeyPair::generate(KeySize::Rsa3072).context("can't generate a key")?;
    let private_der: Pkcs8V1Der<'_> = pair.as_der().context("can't encode a key")?;
    let public_der: PublicKeyX509Der<'_> =
        pair.public_key().as_der().context("can't encode a key")?;
    write(public, 0o644, &pem::Pem::new("PUBLIC KEY", public_der.as_ref()))?;
    write(private, 0o600, &pem::Pem::new("PRIVATE KEY", private_der.as_ref()))
}

fn write(path: &Path, mode: u32, content: &pem::Pem) -> anyhow::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("can't create {}", path.display()))?;
    file.write_all(pem::encode(content).as_bytes())
        .and_then(|()| file.sync_all())
        .with_context(|| format!("can't write {}", path.display()))
}
