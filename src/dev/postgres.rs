//! The private Postgres server.

use std::{
    fs, io,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    data_dir::{DataDir, POSTGRES_PORT},
    group::Group,
    program::{ORPHAN_LIMIT, Options, in_path},
    wait::{pause, within},
};

/// The directory where Debian and Ubuntu install each major version, outside the PATH.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Timeout of the start. It is long enough for recovery after a power failure.
const READY_LIMIT: Duration = Duration::from_mins(1);

const DURABLE: &[&str] = &[];
const FAST: &[&str] = &["fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// The directory of the programs of one installed Postgres.
#[derive(Debug)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// Finds the version that created the cluster or, without a cluster, the newest version.
    ///
    /// # Errors
    ///
    /// When there is no such version.
    pub(super) fn find(dir: &DataDir) -> anyhow::Result<Self> {
        let mut versions = installed_versions();
        versions.sort();
        if let Ok(made_with) = fs::read_to_string(dir.data().join("PG_VERSION")) {
            let made_with = made_with.trim();
            let any = !versions.is_empty();
            versions.retain(|(version, _)| version.to_string() == made_with);
            ensure!(
                !any || !versions.is_empty(),
                "{} was made by Postgres {made_with}, which is not installed any more; \
                 install postgresql-{made_with}, or remove that directory to start afresh",
                dir.data().display()
            );
        }
        versions
            .pop()
            .map(|(_, bin)| bin)
            .or_else(programs_in_path)
            .map(Self)
            .context("Postgres is not installed; on Debian and Ubuntu, the package is postgresql")
    }

    /// Starts the server. Creates the cluster if it does not exist. First waits for the end of
    /// a server that an earlier run left while it was shutting down.
    ///
    /// # Errors
    ///
    /// When the cluster cannot be created or the earlier server does not end.
    pub(super) async fn spawn(
        &self,
        dir: &DataDir,
        group: &mut Group,
        options: Options,
    ) -> anyhow::Result<()> {
        if !dir.data().exists() {
            self.init(dir, group, options).await?;
        }
        let data = dir.server_dir("data")?;
        clear_earlier(dir).await?;
        let mut command = dir.user.command(&self.0.join("postgres"), &dir.home);
        command
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&dir.run)
            .args(["-p", &POSTGRES_PORT.to_string()]);
        let always = [
            "listen_addresses=",
            "max_connections=200",
            "shared_buffers=128MB",
            "timezone=UTC",
            "log_timezone=UTC",
        ];
        let durability = if options.durable { DURABLE } else { FAST };
        for setting in always.iter().chain(durability) {
            command.args(["-c", setting]);
        }
        group.spawn("Postgres", dir.path.join("postgres.log"), command)
    }

    /// Waits until the server accepts connections.
    ///
    /// # Errors
    ///
    /// When a server of the group ends, or the timeout passes.
    pub(super) async fn ready(&self, dir: &DataDir, group: &mut Group) -> anyhow::Result<()> {
        within(READY_LIMIT, "Postgres's readiness", async {
            while !self.is_ready(dir).await? {
                group.check()?;
                pause().await;
            }
            Ok(())
        })
        .await
    }

    async fn is_ready(&self, dir: &DataDir) -> anyhow::Result<bool> {
        let program = self.0.join("pg_isready");
        let mut command = dir.user.command(&program, &dir.home);
        command.arg("-q").arg("-h").arg(&dir.run).args(["-p", &POSTGRES_PORT.to_string()]);
        let status = tokio::process::Command::from(command).status().await.context("pg_isready")?;
        Ok(status.success())
    }

    /// Creates the cluster. It gets its final name only when it is complete, so that an
    /// interrupted creation is never used.
    async fn init(&self, dir: &DataDir, group: &Group, options: Options) -> anyhow::Result<()> {
        remove_unfinished(dir)?;
        // The name contains the process id, because an initdb of a crashed run may still be
        // removing its own directory.
        let unfinished = dir.server_dir(&format!("data.new-{}", std::process::id()))?;
        let mut command = dir.user.command(&self.0.join("initdb"), &dir.home);
        command
            .arg("-D")
            .arg(&unfinished)
            .args(["-U", "postgres", "--auth=trust"])
            .args(["--encoding=UTF8", "--locale=C.UTF-8"])
            .args((!options.durable).then_some("--no-sync"))
            .process_group(group.id()?);
        let output = tokio::process::Command::from(command).output().await.context("initdb")?;
        ensure!(
            output.status.success(),
            "initdb failed, {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        fs::rename(&unfinished, dir.data())?;
        Ok(())
    }
}

/// The major versions in Debian's layout, each with the directory of its programs.
fn installed_versions() -> Vec<(u32, PathBuf)> {
    fs::read_dir(VERSIONS)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            let bin = entry.path().join("bin");
            bin.join("initdb").exists().then_some((version, bin))
        })
        .collect()
}

/// The directory of the first Postgres in the PATH. Symbolic links are resolved.
fn programs_in_path() -> Option<PathBuf> {
    let initdb = in_path("initdb")?.canonicalize().ok()?;
    initdb.parent().map(Path::to_path_buf)
}

/// Removes what a killed initdb left.
fn remove_unfinished(dir: &DataDir) -> anyhow::Result<()> {
    for entry in fs::read_dir(&dir.home)? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(b"data.new-") {
            // That initdb may be removing the directory at the same time, so errors are
            // ignored.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Ends a server that an earlier run left behind, and removes its files. The directory is
/// locked, so nobody uses that server.
async fn clear_earlier(dir: &DataDir) -> anyhow::Result<()> {
    if !Path::new("/proc/self/cmdline").exists() {
        // Without /proc an earlier server cannot be detected, so only Postgres's own stricter
        // checks apply.
        return Ok(());
    }
    if let Some(pid) = running(dir) {
        // The server is probably ending already, and then this has no effect. It may also have
        // ended by now.
        let _ = kill_process(pid, Signal::INT);
        let what = format!("the end of Postgres, pid {pid}, of an earlier run");
        within(ORPHAN_LIMIT, &what, async {
            while running(dir).is_some() {
                pause().await;
            }
            Ok(())
        })
        .await?;
    }
    // Postgres refuses to start if the process id in one of these files belongs to a running
    // process. The exception is the id of Postgres's parent, which it treats as stale. It then
    // still checks that no child of the earlier server uses the shared memory that the rest of
    // the file describes.
    let pid_file = dir.postgres_pid();
    if let Ok(text) = fs::read_to_string(&pid_file) {
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        fs::write(&pid_file, format!("{}\n{rest}", std::process::id()))?;
    }
    let socket_lock = dir.run.join(format!(".s.PGSQL.{POSTGRES_PORT}.lock"));
    match fs::remove_file(socket_lock) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// The process id of a server that runs on this directory's cluster.
fn running(dir: &DataDir) -> Option<Pid> {
    let text = fs::read_to_string(dir.postgres_pid()).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    arguments
        .split(|byte| *byte == 0)
        .any(|argument| argument == dir.data().as_os_str().as_bytes())
        .then_some(pid)
}
