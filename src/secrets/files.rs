//! Files that are there whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Result, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Writes a file in place of the one that is there, with these rights.
///
/// # Errors
/// When it can't be written; the one that was there stays.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let draft = path.with_extension("draft");
    fs::remove_file(&draft).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    // The name, too, outlives a crash of the machine.
    File::open(folder(path))?.sync_all()
}

/// Locks a folder for as long as the result is kept: one at a time changes what is in
/// it.
///
/// # Errors
/// When it can't be read.
pub fn lock(dir: &Path) -> Result<File> {
    let folder = File::open(dir)?;
    folder.lock()?;
    Ok(folder)
}

/// The folder that a file is in.
#[must_use]
pub fn folder(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
