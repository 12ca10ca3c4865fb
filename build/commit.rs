//! The version that `tenantry --version` prints: the package's version, and the commit that
//! the program is built from.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The length of a shown commit hash.
const SHOWN: usize = 12;

/// The variable that gives the commit where there is no git, as in a container's build.
const VARIABLE: &str = "TENANTRY_COMMIT";

/// Returns `0.1.0 (0123456789ab)`, or `0.1.0` when the commit is unknown, as in a tarball.
///
/// # Errors
/// When the variable is set and is no commit hash.
pub fn version() -> Result<String, String> {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let version = env::var("CARGO_PKG_VERSION").map_err(|error| error.to_string())?;
    let given = env::var(VARIABLE).ok().filter(|given| !given.is_empty());
    Ok(match given.map_or_else(|| Ok(from_git()), |given| shown(&given).map(Some))? {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    })
}

fn shown(hash: &str) -> Result<String, String> {
    let is_hash = (SHOWN..=64).contains(&hash.len()) && hash.chars().all(|c| c.is_ascii_hexdigit());
    if is_hash {
        Ok(hash[..SHOWN].to_ascii_lowercase())
    } else {
        Err(format!("{VARIABLE} is not a commit hash of {SHOWN} or more digits: {hash}"))
    }
}

fn from_git() -> Option<String> {
    // In a worktree `.git` is a file. Without this check, sources that were unpacked inside
    // of another repository would show that repository's commit.
    if !Path::new(".git").exists() {
        return None;
    }
    let hash = git(&["rev-parse", "HEAD"])?;
    watch();
    shown(&hash).ok()
}

/// Has cargo run the build again after a commit or a checkout.
fn watch() {
    let of_git = |name: &str| git(&["rev-parse", "--git-path", name]).map(PathBuf::from);
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).and_then(|name| {
        // Git may keep the branch in `packed-refs` alone. The next commit creates its file, and
        // this changes the folder.
        of_git(&name)?.ancestors().find(|path| path.exists()).map(Path::to_path_buf)
    });
    for path in [of_git("HEAD"), of_git("packed-refs"), branch].into_iter().flatten() {
        // A path that does not exist would make every build run again.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// The output of a git command, or nothing when it fails or git is not installed.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    Some(String::from_utf8(text).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
