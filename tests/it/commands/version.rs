//! `tenantry --version`

use std::{path::Path, process::Stdio};

use tokio::process::Command;

use super::run;

/// The version contains the commit of the build, if the commit was known at the build.
#[tokio::test]
async fn the_version_contains_the_commit() {
    let output = run(&["--version"], &[]).await;
    assert!(output.ok, "{output:?}");
    let version = concat!("tenantry ", env!("CARGO_PKG_VERSION"));
    let commit_suffix = output.out.trim_end().strip_prefix(version).expect("the version");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        async move { command.status().await.is_ok_and(|status| status.success()) }
    };
    if !folder.join(".git").exists() || !git(&["rev-parse", "HEAD"]).await {
        assert!(commit_suffix.is_empty() || commit_suffix.starts_with(" ("), "{commit_suffix}");
        return;
    }
    let commit = commit_suffix.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
    let commit = commit.expect("the commit");
    assert!(commit.len() == 12 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{commit}");
    let commit = format!("{commit}^{{commit}}");
    assert!(git(&["cat-file", "-e", &commit]).await, "{commit} is no commit of this repository");
}
