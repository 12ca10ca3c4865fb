//! Facts about releases in the changelog.

use super::read;

/// The headings of the changelog's sections, without links and dates.
fn sections(changelog: &str) -> Vec<&str> {
    let headings = changelog.lines().filter_map(|line| line.strip_prefix("## "));
    headings.filter_map(|heading| heading.split_whitespace().next()).collect()
}

#[test]
fn the_changelog_has_a_section_for_this_version() {
    let changelog = read("CHANGELOG.md");
    let sections = sections(&changelog);
    assert_eq!(sections.first(), Some(&"Unreleased"));
    assert_eq!(sections.get(1), Some(&env!("CARGO_PKG_VERSION")), "{sections:?}");
}

/// A commit can't contain its own hash, so the next commit adds the hash. The newest release may
/// have no hash yet.
#[test]
fn each_earlier_release_names_its_commit() {
    let changelog = read("CHANGELOG.md");
    // Skips the introduction, the section `Unreleased` and the newest release.
    for section in changelog.split("\n## ").skip(3) {
        let is_hash = |hash: &str| hash.len() == 40 && hash.chars().all(|c| c.is_ascii_hexdigit());
        let commit = section.lines().find_map(|line| line.strip_prefix("Commit: "));
        assert!(commit.is_some_and(is_hash), "{}", section.lines().next().expect("a heading"));
    }
}
