//! The user that the servers run as.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

/// The user that the servers run as: the user of this process, or an unprivileged user if this
/// process runs as root. Postgres refuses to run as root.
#[derive(Debug)]
pub(super) struct ServerUser {
    /// The owner of all files that the servers write.
    pub(super) uid: u32,
    /// The user that replaces root; `None` when the servers run as the user of this process.
    unprivileged_user: Option<PasswdEntry>,
}

#[derive(Debug)]
struct PasswdEntry {
    name: String,
    uid: u32,
    gid: u32,
}

impl ServerUser {
    /// Chooses the user. If this process runs as root, chooses `postgres`, or else `nobody`.
    ///
    /// # Errors
    ///
    /// Fails when this process runs as root and neither user exists.
    pub(super) fn choose() -> anyhow::Result<Self> {
        let own_uid = rustix::process::geteuid();
        if !own_uid.is_root() {
            return Ok(Self { uid: own_uid.as_raw(), unprivileged_user: None });
        }
        let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let entry = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| passwd.lines().find_map(|line| PasswdEntry::parse(line, name)))
            .context("Postgres refuses to run as root, and there is no user postgres or nobody")?;
        Ok(Self { uid: entry.uid, unprivileged_user: Some(entry) })
    }

    /// The name of the user that replaces root; `None` when this process does not run as root.
    pub(super) fn unprivileged_user_name(&self) -> Option<&str> {
        self.unprivileged_user.as_ref().map(|entry| entry.name.as_str())
    }

    /// A command that runs `program` as this user in `dir`, without input.
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        // Environment variables such as PGOPTIONS or LC_ALL would change the servers' behaviour.
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .current_dir(dir)
            .stdin(Stdio::null());
        if let Some(entry) = &self.unprivileged_user {
            command.uid(entry.uid).gid(entry.gid);
        }
        command
    }

    /// Makes this user the owner of `path`.
    ///
    /// # Errors
    ///
    /// Fails when chown(2) fails.
    pub(super) fn take_ownership(&self, path: &Path) -> io::Result<()> {
        match &self.unprivileged_user {
            Some(entry) => chown(path, Some(entry.uid), Some(entry.gid)),
            None => Ok(()),
        }
    }

    /// Whether this user can enter `dir`. The program `test` runs as this user and checks the
    /// access, because the access depends on all parent directories of `dir`.
    ///
    /// # Errors
    ///
    /// Fails when `test` cannot be run.
    pub(super) fn can_enter(&self, dir: &Path) -> anyhow::Result<bool> {
        let status = self
            .command(Path::new("test"), Path::new("/"))
            .arg("-x")
            .arg(dir)
            .status()
            .context("test -x")?;
        Ok(status.success())
    }
}

impl PasswdEntry {
    /// Parses a line of passwd(5); `None` when the line describes another user than `name`.
    fn parse(line: &str, name: &str) -> Option<Self> {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        // The fields are name, password, user id and group id.
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), uid, gid })
    }
}
