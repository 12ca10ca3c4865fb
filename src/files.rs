//! Files that are there whole or not at all.

use std::{
    fs::{self, OpenOptions},
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
    fs::rename(&draft, path)
}
