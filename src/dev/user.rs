//! The user that the servers run as.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

/// The user that the servers run as. It is this process's own user. If that is root, it is an
/// unprivileged user instead, because Postgres refuses to run as root.
#[derive(Debug)]
pub(super) struct ServerUser {
    /// The owner of all files that the servers write.
    pub(super) uid: u32,
    /// `None` when the servers run as this process's own user.
    instead_of_root: Option<Account>,
}

#[derive(Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl ServerUser {
    /// Chooses the user. If this process is root, it is `postgres`, or else `nobody`.
    ///
    /// # Errors
    ///
    /// When this process is root and neither user exists.
    pub(super) fn choose() -> anyhow::Result<Self> {
        let me = rustix::process::geteuid();
        if !me.is_root() {
            return Ok(Self { uid: me.as_raw(), instead_of_root: None });
        }
        let passwd = fs::read_to_string("/etc/passwd").context("/etc/passwd")?;
        let account = ["postgres", "nobody"]
            .into_iter()
            .find_map(|name| passwd.lines().find_map(|line| Account::parse(line, name)))
            .context("Postgres refuses to run as root, and there is no user postgres or nobody")?;
        Ok(Self { uid: account.uid, instead_of_root: Some(account) })
    }

    /// The name of the user that replaces root; `None` when this process is not root.
    pub(super) fn instead_of_root(&self) -> Option<&str> {
        self.instead_of_root.as_ref().map(|account| account.name.as_str())
    }

    /// A command that runs `program` as this user in `dir`, without input.
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        // Variables such as PGOPTIONS or LC_ALL would change the servers' behavior.
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .current_dir(dir)
            .stdin(Stdio::null());
        if let Some(account) = &self.instead_of_root {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Makes this user the owner of `path`.
    ///
    /// # Errors
    ///
    /// The errors of chown(2).
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        match &self.instead_of_root {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    }

    /// Whether this user can enter `dir`. The program `test` checks it, because the answer
    /// depends on every directory above `dir`.
    ///
    /// # Errors
    ///
    /// When `test` cannot be run.
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

impl Account {
    /// Parses a line of passwd(5); `None` when it describes another user than `name`.
    fn parse(line: &str, name: &str) -> Option<Self> {
        let mut fields = line.split(':');
        if fields.next() != Some(name) {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), uid, gid })
    }
}
