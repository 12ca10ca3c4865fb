//! Released migrations never change (migrations/README.md).

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use aws_lc_rs::digest;
use tempfile::TempDir;

const CHECKSUMS: &str = "checksums.txt";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations")
}

fn sha256(path: &Path) -> String {
    let bytes = fs::read(path).expect("a file");
    let mut text = String::new();
    for byte in digest::digest(&digest::SHA256, &bytes).as_ref() {
        write!(text, "{byte:02x}").expect("written");
    }
    text
}

/// The number that a migration's name begins with.
fn number(name: &str) -> u32 {
    name.split('_').next().and_then(|digits| digits.parse().ok()).expect(name)
}

/// The listed migrations with their checksums, in the format of `sha256sum`.
fn listed(folder: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(folder.join(CHECKSUMS)).expect("checksums");
    let entry = |line: &str| {
        let (sum, name) = line.split_once("  ").expect("a checksum and a name");
        (name.to_owned(), sum.to_owned())
    };
    let entries: BTreeMap<_, _> = text.lines().map(entry).collect();
    assert_eq!(entries.len(), text.lines().count(), "a file is listed twice");
    entries
}

/// The differences between the migrations and those that were released.
fn faults(folder: &Path) -> Vec<String> {
    let listed = listed(folder);
    let last = listed.keys().map(|name| number(name)).max().expect("a released migration");
    let mut faults = Vec::new();
    for (name, sum) in &listed {
        let path = folder.join(name);
        if !path.is_file() {
            faults.push(format!("{name} is missing"));
        } else if sha256(&path) != *sum {
            faults.push(format!("{name} changed"));
        }
    }
    for entry in fs::read_dir(folder).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let is_migration = Path::new(&name).extension().is_some_and(|ending| ending == "sql");
        if is_migration && !listed.contains_key(&name) && number(&name) <= last {
            faults.push(format!("{name} is not listed, and not newer than the last release"));
        }
    }
    faults
}

/// A copy of the migrations that may be changed.
fn copy() -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(folder()).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    copy
}

#[test]
fn released_migrations_are_unchanged() {
    assert_eq!(faults(&folder()), [""; 0]);
}

#[test]
fn a_changed_migration_is_noticed() {
    let copy = copy();
    let path = copy.path().join("0007_users.sql");
    let text = fs::read_to_string(&path).expect("a file");
    fs::write(&path, format!("{text}-- More.\n")).expect("written");
    assert_eq!(faults(copy.path()), ["0007_users.sql changed"]);
}

#[test]
fn a_missing_or_renamed_migration_is_noticed() {
    let copy = copy();
    let (from, to) = (copy.path().join("0007_users.sql"), copy.path().join("0007_people.sql"));
    fs::rename(from, to).expect("renamed");
    let unlisted = "0007_people.sql is not listed, and not newer than the last release";
    assert_eq!(faults(copy.path()), ["0007_users.sql is missing", unlisted]);
}

/// The next release may add files, but only after those of the last one.
#[test]
fn a_new_migration_has_a_higher_number_than_the_released_ones() {
    let copy = copy();
    fs::write(copy.path().join("9999_more.sql"), "").expect("written");
    assert_eq!(faults(copy.path()), [""; 0]);
    fs::write(copy.path().join("0001_more.sql"), "").expect("written");
    let unlisted = "0001_more.sql is not listed, and not newer than the last release";
    assert_eq!(faults(copy.path()), [unlisted]);
}
