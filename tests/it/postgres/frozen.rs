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

pub(super) fn migrations_dir() -> PathBuf {
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

/// The checksums of the released migrations, by name. The file has the format of `sha256sum`.
pub(super) fn released_checksums(dir: &Path) -> BTreeMap<String, String> {
    let text = fs::read_to_string(dir.join(CHECKSUMS)).expect("checksums");
    let entry = |line: &str| {
        let (sum, name) = line.split_once("  ").expect("a checksum and a name");
        (name.to_owned(), sum.to_owned())
    };
    let entries: BTreeMap<_, _> = text.lines().map(entry).collect();
    assert_eq!(entries.len(), text.lines().count(), "a file is listed twice");
    entries
}

/// The differences between the migrations in a folder and the released migrations.
fn differences(dir: &Path) -> Vec<String> {
    let released = released_checksums(dir);
    let last_number = released.keys().map(|name| number(name)).max().expect("a released migration");
    let mut differences = Vec::new();
    for (name, sum) in &released {
        let path = dir.join(name);
        if !path.is_file() {
            differences.push(format!("{name} is missing"));
        } else if sha256(&path) != *sum {
            differences.push(format!("{name} changed"));
        }
    }
    for entry in fs::read_dir(dir).expect("a folder") {
        let name = entry.expect("an entry").file_name().into_string().expect("a name");
        let is_migration = Path::new(&name).extension().is_some_and(|ending| ending == "sql");
        if is_migration && !released.contains_key(&name) && number(&name) <= last_number {
            differences.push(format!("{name} is not listed, and not newer than the last release"));
        }
    }
    differences
}

/// Copies the migrations, so that a test can change them.
fn copy_migrations() -> TempDir {
    let copy = tempfile::tempdir().expect("a folder");
    for entry in fs::read_dir(migrations_dir()).expect("a folder") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), copy.path().join(entry.file_name())).expect("copied");
    }
    copy
}

#[test]
fn released_migrations_are_unchanged() {
    assert_eq!(differences(&migrations_dir()), [""; 0]);
}

#[test]
fn a_changed_migration_is_noticed() {
    let copy = copy_migrations();
    let path = copy.path().join("0007_users.sql");
    let text = fs::read_to_string(&path).expect("a file");
    fs::write(&path, format!("{text}-- More.\n")).expect("written");
    assert_eq!(differences(copy.path()), ["0007_users.sql changed"]);
}

#[test]
fn a_missing_or_renamed_migration_is_noticed() {
    let copy = copy_migrations();
    let (from, to) = (copy.path().join("0007_users.sql"), copy.path().join("0007_people.sql"));
    fs::rename(from, to).expect("renamed");
    let unlisted = "0007_people.sql is not listed, and not newer than the last release";
    assert_eq!(differences(copy.path()), ["0007_users.sql is missing", unlisted]);
}

/// The next release may add files whose numbers are higher than those of the last release.
#[test]
fn a_new_migration_has_a_higher_number_than_the_released_ones() {
    let copy = copy_migrations();
    fs::write(copy.path().join("9999_more.sql"), "").expect("written");
    assert_eq!(differences(copy.path()), [""; 0]);
    fs::write(copy.path().join("0001_more.sql"), "").expect("written");
    let unlisted = "0001_more.sql is not listed, and not newer than the last release";
    assert_eq!(differences(copy.path()), [unlisted]);
}
