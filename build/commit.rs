//! The version that `tenantry --version` prints: the version of the package, and the commit that
//! the program is built from.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The number of digits of the commit hash in the version.
const SHORT_HASH_DIGITS: usize = 12;

/// The environment variable with the commit, for a build without git, such as the build of an
/// image.
const COMMIT_VARIABLE: &str = "TENANTRY_COMMIT";

/// Returns `0.1.0 (0123456789ab)`, or `0.1.0` when the commit is unknown, as in a tarball.
///
/// # Errors
/// Returns an error when the variable is set to a value that is not a commit hash.
pub fn version() -> Result<String, String> {
    println!("cargo::rerun-if-env-changed={COMMIT_VARIABLE}");
    let version = env::var("CARGO_PKG_VERSION").map_err(|error| error.to_string())?;
    let from_variable = env::var(COMMIT_VARIABLE).ok().filter(|hash| !hash.is_empty());
    let commit = match from_variable {
        Some(hash) => Some(short_hash(&hash)?),
        None => from_git(),
    };
    Ok(match commit {
        Some(commit) => format!("{version} ({commit})"),
        None => version,
    })
}

/// The first digits of a commit hash.
fn short_hash(hash: &str) -> Result<String, String> {
    let is_hash = (SHORT_HASH_DIGITS..=64).contains(&hash.len())
        && hash.chars().all(|c| c.is_ascii_hexdigit());
    if is_hash {
        Ok(hash[..SHORT_HASH_DIGITS].to_ascii_lowercase())
    } else {
        Err(format!(
            "{COMMIT_VARIABLE} is not a commit hash of {SHORT_HASH_DIGITS} or more digits: {hash}"
        ))
    }
}

fn from_git() -> Option<String> {
    // `.git` is a folder, or a file in a worktree. Without this check, sources that were unpacked
    // inside of another repository would show the commit of that repository.
    if !Path::new(".git").exists() {
        return None;
    }
    let hash = git(&["rev-parse", "HEAD"])?;
    rerun_after_commit();
    short_hash(&hash).ok()
}

/// Tells cargo to run the build again after a commit or a checkout.
fn rerun_after_commit() {
    let git_path = |name: &str| git(&["rev-parse", "--git-path", name]).map(PathBuf::from);
    let branch = git(&["symbolic-ref", "--quiet", "HEAD"]).and_then(|name| {
        // If the branch is only in `packed-refs`, it has no file. The next commit creates the file,
        // which changes the folder, so the path of the folder is used.
        git_path(&name)?.ancestors().find(|path| path.exists()).map(Path::to_path_buf)
    });
    for path in [git_path("HEAD"), git_path("packed-refs"), branch].into_iter().flatten() {
        // A path that does not exist would make every build run again.
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
}

/// The output of a git command. `None` when the command fails or prints nothing, or git is not
/// installed.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    Some(String::from_utf8(text).ok()?.trim().to_owned()).filter(|text| !text.is_empty())
}
