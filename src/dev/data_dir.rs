//! The directories of the development Postgres and Redis. One process at a time uses the
//! directories.
//!
//! ```text
//! <dir>/lock, postgres.log, redis.log
//! <servers_dir>/data, redis             <servers_dir> is <dir>, or a directory below /var/tmp if
//!                                       the server user cannot enter <dir>
//! <run>/.s.PGSQL.5432, redis.sock       <run> is <servers_dir>/run, or a directory below /tmp if
//!                                       the path <servers_dir>/run is not valid for a socket
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

/// Maximum length of a Unix socket's path that every system accepts, in bytes. The limit of the
/// BSDs is 104 and that of Linux is 108, both with the terminating zero.
const MAX_SOCKET_PATH: usize = 103;

/// Timeout of the wait for the lock. The system releases the lock of a killed process after a short
/// delay.
const LOCK_LIMIT: Duration = Duration::from_millis(500);

/// The directories of one Postgres and one Redis. No other process can use the directories until
/// the value is dropped.
#[derive(Debug)]
pub(super) struct DataDir {
    /// The directory that was passed to [`DataDir::claim`], with symbolic links resolved. The
    /// directory contains the lock file and the logs.
    pub(super) path: PathBuf,
    /// The directory of the servers' data.
    pub(super) servers_dir: PathBuf,
    /// The directory of the sockets.
    pub(super) run: PathBuf,
    /// The owner of the servers' directories.
    pub(super) user: ServerUser,
    /// Messages to the developer about directories in unexpected places; see `Services::notes`.
    pub(super) notes: Vec<String>,
    /// The locked file. The system releases the lock when this process ends.
    _lock: File,
}

impl DataDir {
    /// Creates the missing directories, and locks `dir`.
    ///
    /// # Errors
    ///
    /// Fails when another process has locked `dir`, or when another user owns one of the
    /// directories.
    pub(super) async fn claim(dir: &Path) -> anyhow::Result<Self> {
        let user = ServerUser::choose()?;
        let dir = std::path::absolute(dir)?;
        if let Some(parent) = dir.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        make_private_dir(&dir, &user)?;
        let dir = dir.canonicalize()?;
        let lock = lock(&dir).await?;

        let mut notes = Vec::new();
        let mut servers_dir = dir.clone();
        if let Some(name) = user.unprivileged_user_name()
            && !user.can_enter(&dir)?
        {
            servers_dir = make_outside_dir("/var/tmp", &dir, &user, "moved-data")?;
            notes.push(format!(
                "the servers run as user {name}, who cannot enter {}: their data is in {}",
                dir.display(),
                servers_dir.display()
            ));
        }
        let mut run = servers_dir.join("run");
        if !can_contain_sockets(&run) {
            let short_dir = make_outside_dir("/tmp", &dir, &user, "moved-sockets")?;
            run = short_dir.join("run");
            notes.push(format!(
                "the path {} is too long or has characters that a socket's path cannot have: \
                 the sockets are in {}",
                servers_dir.display(),
                run.display()
            ));
        }
        make_server_dir(&run, &user)?;
        Ok(Self { path: dir, servers_dir, run, user, notes, _lock: lock })
    }

    /// The directory of the Postgres cluster. The first start creates this directory.
    pub(super) fn postgres_data(&self) -> PathBuf {
        self.servers_dir.join("data")
    }

    /// Postgres's pid file, which exists while Postgres runs.
    pub(super) fn postgres_pid(&self) -> PathBuf {
        self.postgres_data().join("postmaster.pid")
    }

    /// Redis's socket, which exists while Redis runs.
    pub(super) fn redis_socket(&self) -> PathBuf {
        self.run.join("redis.sock")
    }

    /// Creates the directory `name` in `servers_dir` for the server user, if the directory does not
    /// exist.
    ///
    /// # Errors
    ///
    /// Fails when the directory cannot be created, or when another user owns it.
    pub(super) fn make_server_dir(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.servers_dir.join(name);
        make_server_dir(&path, &self.user)?;
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

/// Creates a directory below `base` for files that cannot be in `dir`. The name of the directory is
/// derived from `dir`, so that a later start finds the directory again. The symbolic link
/// `link_name` in `dir` points to the directory, for developers and for `scripts/clean-dev`. Other
/// users may be able to write to `base`, so the owner of the directory is checked.
fn make_outside_dir(
    base: &str,
    dir: &Path,
    user: &ServerUser,
    link_name: &str,
) -> anyhow::Result<PathBuf> {
    let own_uid = rustix::process::geteuid().as_raw();
    let hash = fnv1a(dir.as_os_str().as_bytes());
    let path = Path::new(base).join(format!("tenantry-{own_uid}-{hash:016x}"));
    make_private_dir(&path, user)?;
    ignore_existing(symlink(&path, dir.join(link_name)))?;
    Ok(path)
}

/// Makes `path` a directory that only this process's user can list or change. If the servers run as
/// another user, all users can enter the directory, but not the directories in it.
fn make_private_dir(path: &Path, user: &ServerUser) -> anyhow::Result<()> {
    let own_uid = rustix::process::geteuid().as_raw();
    let mode = if user.uid == own_uid { 0o700 } else { 0o711 };
    make_dir(path, own_uid)?;
    fs::set_permissions(path, Permissions::from_mode(mode))
        .with_context(|| path.display().to_string())
}

/// Makes `path` a directory that only the server user can enter.
fn make_server_dir(path: &Path, user: &ServerUser) -> anyhow::Result<()> {
    let creation = DirBuilder::new().mode(0o700).create(path);
    ignore_existing(creation)
        .and_then(|()| fs::symlink_metadata(path))
        .and_then(|metadata| {
            // If this process owns the directory, the directory is new, or an earlier start was
            // interrupted before it changed the owner.
            let own_uid = rustix::process::geteuid().as_raw();
            if metadata.uid() == own_uid { user.take_ownership(path) } else { Ok(()) }
        })
        .with_context(|| path.display().to_string())?;
    check_owner(path, user.uid)
}

fn make_dir(path: &Path, owner: u32) -> anyhow::Result<()> {
    ignore_existing(DirBuilder::new().mode(0o700).create(path))
        .with_context(|| path.display().to_string())?;
    check_owner(path, owner)
}

/// Checks the owner of a directory. In a directory such as /tmp, an attacker may have created
/// `path` first.
fn check_owner(path: &Path, owner: u32) -> anyhow::Result<()> {
    let metadata = fs::symlink_metadata(path).with_context(|| path.display().to_string())?;
    ensure!(metadata.is_dir(), "{} is not a directory; remove it and start again", path.display());
    ensure!(
        metadata.uid() == owner,
        "{} belongs to user id {}, not {owner}: remove it, or start as the user who created it",
        path.display(),
        metadata.uid()
    );
    Ok(())
}

fn ignore_existing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

/// Whether sockets can be in `dir`. The length of a socket's path is limited. The path is also part
/// of URLs and of a Postgres setting that contains a list. There, only letters, digits and `/-._`
/// need no escaping.
fn can_contain_sockets(dir: &Path) -> bool {
    let longest_path = dir.join(format!(".s.PGSQL.{POSTGRES_PORT}"));
    let bytes = longest_path.as_os_str().as_bytes();
    bytes.len() <= MAX_SOCKET_PATH
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"/-._".contains(byte))
}

/// The 64-bit FNV-1a hash. The hashes of the standard library may change with the compiler, and
/// then a later start would not find the directory.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
