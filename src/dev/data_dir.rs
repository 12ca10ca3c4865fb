//! The directories of the private servers, with exclusive access.
//!
//! ```text
//! <dir>/lock  postgres.log  redis.log
//! <home>/data  redis                    home: <dir>, or below /var/tmp if the server user
//!                                       cannot enter <dir>
//! <home>/run/.s.PGSQL.5432  redis.sock  run: or below /tmp if the path is not valid for a
//!                                       socket
//! ```

use std::{
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};

use super::{user::ServerUser, wait::pause};

/// Part of the name of Postgres's socket. No TCP port is opened.
pub(super) const POSTGRES_PORT: u16 = 5432;

/// Maximum length of a Unix socket's path that every system accepts, in bytes. The limit is 104
/// with the terminating zero on the BSDs, and 108 on Linux.
const SOCKET_PATH_MAX: usize = 103;

/// Time to wait for the lock. A process that was just killed keeps its lock until the system
/// has cleaned it up.
const LOCK_LIMIT: Duration = Duration::from_millis(500);

/// The directories of one pair of servers. This process has exclusive use of them until the
/// value is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    /// The directory that the caller named, without symbolic links. It holds the lock and the
    /// logs.
    pub(super) path: PathBuf,
    /// The directory of the servers' data.
    pub(super) home: PathBuf,
    /// The directory of the sockets.
    pub(super) run: PathBuf,
    /// The owner of the servers' directories.
    pub(super) user: ServerUser,
    /// See `Services::notes`.
    pub(super) notes: Vec<String>,
    /// Holds the lock. The system releases the lock when this process ends.
    _lock: File,
}

impl DataDir {
    /// Creates the missing directories and locks them.
    ///
    /// # Errors
    ///
    /// When another process has locked `dir`, or when another user owns something in it.
    pub(super) async fn claim(dir: &Path) -> anyhow::Result<Self> {
        let user = ServerUser::choose()?;
        let dir = std::path::absolute(dir)?;
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        private_dir(&dir, &user)?;
        let dir = dir.canonicalize()?;
        let lock = lock(&dir).await?;

        let mut notes = Vec::new();
        let mut home = dir.clone();
        if let Some(name) = user.instead_of_root()
            && !user.can_enter(&dir)?
        {
            home = elsewhere("/var/tmp", &dir, &user, "moved-data")?;
            notes.push(format!(
                "the servers run as user {name}, who cannot enter {}: their data is in {}",
                dir.display(),
                home.display()
            ));
        }
        let mut run = home.join("run");
        if !can_name_a_socket(&run) {
            let short = elsewhere("/tmp", &dir, &user, "moved-sockets")?;
            run = short.join("run");
            notes.push(format!(
                "the path of {} cannot name a Unix socket: the sockets are in {}",
                home.display(),
                run.display()
            ));
        }
        server_dir(&run, &user)?;
        Ok(Self { path: dir, home, run, user, notes, _lock: lock })
    }

    /// The directory of the Postgres cluster. It does not exist before the first start.
    pub(super) fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    /// Postgres's pid file. It exists while Postgres runs.
    pub(super) fn postgres_pid(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    /// Redis's socket. It exists while Redis runs.
    pub(super) fn redis_socket(&self) -> PathBuf {
        self.run.join("redis.sock")
    }

    /// Creates the directory `name` in `home` for the server user if it does not exist.
    ///
    /// # Errors
    ///
    /// When the directory cannot be created, or another user owns it.
    pub(super) fn server_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.home.join(name);
        server_dir(&path, &self.user)?;
        Ok(path)
    }
}

/// Locks `dir`, and writes this process's id into the lock file for the error message of a
/// second process.
async fn lock(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("lock");
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(&path)
        .with_context(|| path.display().to_string())?;
    let deadline = Instant::now() + LOCK_LIMIT;
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::WouldBlock if Instant::now() < deadline => pause().await,
            TryLockError::WouldBlock => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                bail!("already running from {}, pid {}", dir.display(), pid.trim());
            }
            TryLockError::Error(error) => return Err(error).context("cannot lock"),
        }
    }
    file.set_len(0)?;
    writeln!(file, "{}", std::process::id())?;
    Ok(file)
}

/// Creates a directory for `dir` below `base`, to which other users may write. Its name is
/// derived from `dir`, so that a later start finds it. The symbolic link `link` in `dir` points
/// to it, for developers and for `scripts/clean-dev`.
fn elsewhere(base: &str, dir: &Path, user: &ServerUser, link: &str) -> anyhow::Result<PathBuf> {
    let me = rustix::process::geteuid().as_raw();
    let hash = fnv1a(dir.as_os_str().as_bytes());
    let path = Path::new(base).join(format!("tenantry-{me}-{hash:016x}"));
    private_dir(&path, user)?;
    exists_or(symlink(&path, dir.join(link)))?;
    Ok(path)
}

/// Makes `path` a directory that only this process's user can list or change. If the servers
/// run as another user, other users may traverse it, but the directories in it are closed to
/// them.
fn private_dir(path: &Path, user: &ServerUser) -> anyhow::Result<()> {
    let me = rustix::process::geteuid().as_raw();
    let mode = if user.uid == me { 0o700 } else { 0o711 };
    make_dir(path, me)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| path.display().to_string())
}

/// Makes `path` a directory that only the server user can enter.
fn server_dir(path: &Path, user: &ServerUser) -> anyhow::Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    exists_or(made)
        .and_then(|()| fs::symlink_metadata(path))
        .and_then(|found| {
            // This process owns a directory that it has just created, or whose creation was
            // interrupted.
            let me = rustix::process::geteuid().as_raw();
            if found.uid() == me { user.own(path) } else { Ok(()) }
        })
        .with_context(|| path.display().to_string())?;
    check_owner(path, user.uid)
}

fn make_dir(path: &Path, owner: u32) -> anyhow::Result<()> {
    exists_or(DirBuilder::new().mode(0o700).create(path))
        .with_context(|| path.display().to_string())?;
    check_owner(path, owner)
}

/// Checks the owner. In a directory such as /tmp, another user may have created `path` first,
/// as an attack.
fn check_owner(path: &Path, owner: u32) -> anyhow::Result<()> {
    let found = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    ensure!(found.is_dir(), "{} is not a directory; remove it and start again", path.display());
    ensure!(
        found.uid() == owner,
        "{} belongs to user id {}, not {owner}: remove it, or start as the user who made it",
        path.display(),
        found.uid()
    );
    Ok(())
}

fn exists_or(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Whether sockets can be in `dir`. Their path is limited in length. It is also part of URLs
/// and of a Postgres list setting, where only these characters need no escaping.
fn can_name_a_socket(dir: &Path) -> bool {
    let longest = dir.join(format!(".s.PGSQL.{POSTGRES_PORT}"));
    let bytes = longest.as_os_str().as_bytes();
    bytes.len() <= SOCKET_PATH_MAX
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/-._".contains(byte))
}

/// The 64-bit FNV-1a hash. The standard library's hashes may change with the compiler, and then
/// the directory would not be found again.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
