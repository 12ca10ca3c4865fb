//! Atomic replacement of files, and locks on folders.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{ErrorKind, Result, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown},
    path::Path,
};

/// The permission bits of a new file until its owner is set.
const DRAFT_MODE: u32 = 0o600;

/// Replaces a file atomically. The owner, the group and the permission bits of an existing file
/// stay the same. A new file has the permission bits `mode`.
///
/// # Errors
/// When the file can't be written, or when this process may not give the new file the owner and the
/// group of the old file. Then the old file is unchanged, unless only the last sync failed.
pub fn replace(path: &Path, mode: u32, content: &[u8]) -> Result<()> {
    // If the path is a symbolic link, the file that it points to is replaced, not the link.
    let target = fs::canonicalize(path).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(path.to_owned()),
        _ => Err(error),
    })?;
    let draft = target.with_extension("draft");
    fs::remove_file(&draft).or_else(|error| match error.kind() {
        ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    })?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(DRAFT_MODE).open(&draft)?;
    let result = write_draft(&mut file, &target, mode, content);
    if let Err(error) = result.and_then(|()| fs::rename(&draft, &target)) {
        // The draft may contain a key.
        fs::remove_file(&draft).ok();
        return Err(error);
    }
    // The sync of the folder makes the new name durable too.
    File::open(folder(&target))?.sync_all()
}

/// Writes the content, with the owner, group and permission bits of the file that is replaced.
fn write_draft(draft: &mut File, target: &Path, mode: u32, content: &[u8]) -> Result<()> {
    let mode = match fs::metadata(target) {
        Ok(old) => {
            let new = draft.metadata()?;
            if (old.uid(), old.gid()) != (new.uid(), new.gid()) {
                fchown(&*draft, Some(old.uid()), Some(old.gid()))?;
            }
            old.mode() & 0o7777
        }
        Err(error) if error.kind() == ErrorKind::NotFound => mode,
        Err(error) => return Err(error),
    };
    draft.set_permissions(Permissions::from_mode(mode))?;
    draft.write_all(content)?;
    draft.sync_all()
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
