//! Atomic replacement of files, and locks on folders.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Result, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Replaces a file atomically, with the permission bits `mode`.
///
/// # Errors
/// When the file can't be written. Then the old file is unchanged, unless only the last sync
/// failed.
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
    // The sync of the folder makes the new name durable too.
    File::open(folder(path))?.sync_all()
}

/// Locks a folder exclusively, until the returned file is dropped. The lock serializes changes of
/// the folder's files.
///
/// # Errors
/// When the folder can't be opened.
pub fn lock(folder: &Path) -> Result<File> {
    let file = File::open(folder)?;
    file.lock()?;
    Ok(file)
}

/// The folder that contains a file.
#[must_use]
pub fn folder(path: &Path) -> &Path {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    parent.unwrap_or(Path::new("."))
}
