//! `tenantry --version`

use std::{path::Path, process::Stdio};

use tokio::process::Command;

use super::run;

/// The program says which commit it was built from, where that is known.
#[tokio::test]
async fn the_version_has_the_commit() {
    let ran = run(&["--version"], &[]).await;
    assert!(ran.ok, "{ran:?}");
    let version = concat!("tenantry ", env!("CARGO_PKG_VERSION"));
    let rest = ran.out.trim_end().strip_prefix(version).expect("the version");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.args(arguments).current_dir(folder).stdout(Stdio::null()).stderr(Stdio::null());
        async move { command.status().await.is_ok_and(|status| status.success()) }
    };
    if !folder.join(".git").exists() || !git(&["rev-parse", "HEAD"]).await {
        assert!(rest.is_empty() || rest.starts_with(" ("), "{rest}");
        return;
    }
    let commit = rest.strip_prefix(" (").and_then(|rest| rest.strip_suffix(')'));
    let commit = commit.expect("the commit");
    assert!(commit.len() == 12 && commit.chars().all(|c| c.is_ascii_hexdigit()), "{commit}");
    let commit = format!("{commit}^{{commit}}");
    assert!(git(&["cat-file", "-e", &commit]).await, "{commit} is no commit of this repository");
}
