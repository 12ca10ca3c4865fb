//! As which user the servers run.

use std::{
    fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::Context;

/// The user that the servers run as: this process's own or, because Postgres refuses to run as
/// root, an unprivileged one in root's place.
#[derive(Debug)]
pub(super) struct ServerUser {
    /// Owner of everything that the servers write.
    pub(super) uid: u32,
    /// `None` when that is this process's own user and nothing has to be changed.
    instead_of_root: Option<Account>,
}

#[derive(Debug)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

impl ServerUser {
    /// Chooses the user: `postgres`, else `nobody`, when this process is root.
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

    /// The name of the user that stands in for root, if one does.
    pub(super) fn instead_of_root(&self) -> Option<&str> {
        self.instead_of_root.as_ref().map(|account| account.name.as_str())
    }

    /// A command that runs `program` as this user, in `dir`, detached from the terminal.
    pub(super) fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        // Variables such as PGOPTIONS or LC_ALL would change what the servers do.
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

    /// Makes `path` this user's.
    ///
    /// # Errors
    ///
    /// Those of chown(2).
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        match &self.instead_of_root {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    }

    /// Whether this user can get into `dir`. Asked of the system, as the answer depends on every
    /// directory above it.
    ///
    /// # Errors
    ///
    /// When the question cannot be asked.
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
    /// Reads a line of passwd(5) if it describes `name`.
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
