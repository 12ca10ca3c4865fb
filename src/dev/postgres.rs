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
    program::{ORPHAN_LIMIT, Options, find_in_path},
    wait::{pause, with_timeout},
};

/// The directory where Debian and Ubuntu install each major version, outside the PATH.
const VERSIONS: &str = "/usr/lib/postgresql";

/// Timeout of the start, long enough for a recovery after a power failure.
const READY_LIMIT: Duration = Duration::from_mins(1);

const DURABLE_SETTINGS: &[&str] = &[];
const FAST_SETTINGS: &[&str] = &["fsync=off", "synchronous_commit=off", "full_page_writes=off"];

/// The programs of one installed Postgres, by their directory.
#[derive(Debug)]
pub(super) struct Programs(PathBuf);

impl Programs {
    /// Finds the version that created the cluster or, without a cluster, the newest version.
    ///
    /// # Errors
    ///
    /// Fails when this version is not installed.
    pub(super) fn find(dir: &DataDir) -> anyhow::Result<Self> {
        let mut versions = installed_versions();
        versions.sort();
        if let Ok(cluster_version) = fs::read_to_string(dir.postgres_data().join("PG_VERSION")) {
            let cluster_version = cluster_version.trim();
            // If `VERSIONS` has no version at all, the Postgres in the PATH is used.
            let had_versions = !versions.is_empty();
            versions.retain(|(version, _)| version.to_string() == cluster_version);
            ensure!(
                !had_versions || !versions.is_empty(),
                "{} was created by Postgres {cluster_version}, which is not installed any more; \
                 install postgresql-{cluster_version}, or remove that directory to start without \
                 data",
                dir.postgres_data().display()
            );
        }
        versions
            .pop()
            .map(|(_, bin)| bin)
            .or_else(find_programs_in_path)
            .map(Self)
            .context("Postgres is not installed; on Debian and Ubuntu, the package is postgresql")
    }

    /// Starts the server. Creates the cluster if it does not exist. First ends a server that an
    /// earlier run left running.
    ///
    /// # Errors
    ///
    /// Fails when the cluster cannot be created or the earlier server does not end.
    pub(super) async fn spawn(
        &self,
        dir: &DataDir,
        group: &mut Group,
        options: Options,
    ) -> anyhow::Result<()> {
        if !dir.postgres_data().exists() {
            self.create_cluster(dir, group, options).await?;
        }
        let data = dir.make_server_dir("data")?;
        end_earlier_server(dir).await?;
        let mut command = dir.user.command(&self.0.join("postgres"), &dir.servers_dir);
        command
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(&dir.run)
            .args(["-p", &POSTGRES_PORT.to_string()]);
        let fixed_settings = [
            "listen_addresses=",
            "max_connections=200",
            "shared_buffers=128MB",
            "timezone=UTC",
            "log_timezone=UTC",
        ];
        let durability_settings = if options.durable { DURABLE_SETTINGS } else { FAST_SETTINGS };
        for setting in fixed_settings.iter().chain(durability_settings) {
            command.args(["-c", setting]);
        }
        group.spawn("Postgres", dir.path.join("postgres.log"), command)
    }

    /// Waits until the server accepts connections.
    ///
    /// # Errors
    ///
    /// Fails when a server of the group ends, or when the timeout passes.
    pub(super) async fn wait_until_ready(
        &self,
        dir: &DataDir,
        group: &mut Group,
    ) -> anyhow::Result<()> {
        with_timeout(READY_LIMIT, "Postgres's readiness", async {
            while !self.is_ready(dir).await? {
                group.check_members()?;
                pause().await;
            }
            Ok(())
        })
        .await
    }

    async fn is_ready(&self, dir: &DataDir) -> anyhow::Result<bool> {
        let program = self.0.join("pg_isready");
        let mut command = dir.user.command(&program, &dir.servers_dir);
        command.arg("-q").arg("-h").arg(&dir.run).args(["-p", &POSTGRES_PORT.to_string()]);
        let status = tokio::process::Command::from(command).status().await.context("pg_isready")?;
        Ok(status.success())
    }

    /// Creates the cluster. The directory gets its final name only when the cluster is complete, so
    /// that an unfinished cluster is never used.
    async fn create_cluster(
        &self,
        dir: &DataDir,
        group: &Group,
        options: Options,
    ) -> anyhow::Result<()> {
        remove_unfinished_clusters(dir)?;
        // The name contains the process id, because the initdb of a crashed run may still be
        // removing its own directory.
        let unfinished = dir.make_server_dir(&format!("data.new-{}", std::process::id()))?;
        let mut command = dir.user.command(&self.0.join("initdb"), &dir.servers_dir);
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
        fs::rename(&unfinished, dir.postgres_data())?;
        Ok(())
    }
}

/// The major versions in [`VERSIONS`], each with the directory of its programs.
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
fn find_programs_in_path() -> Option<PathBuf> {
    let initdb = find_in_path("initdb")?.canonicalize().ok()?;
    initdb.parent().map(Path::to_path_buf)
}

/// Removes the directories that killed initdb processes left.
fn remove_unfinished_clusters(dir: &DataDir) -> anyhow::Result<()> {
    for entry in fs::read_dir(&dir.servers_dir)? {
        let entry = entry?;
        if entry.file_name().as_bytes().starts_with(b"data.new-") {
            // An initdb may be removing its directory at the same time, so errors are ignored.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

/// Ends a server that an earlier run left running, and changes the lock files of that server so
/// that a new server can start. This process has locked the directory, so nobody uses the earlier
/// server.
async fn end_earlier_server(dir: &DataDir) -> anyhow::Result<()> {
    if !Path::new("/proc/self/cmdline").exists() {
        // Without /proc, an earlier server cannot be detected. Then Postgres may refuse to start,
        // because Postgres also checks for earlier servers, more strictly.
        return Ok(());
    }
    if let Some(pid) = earlier_server_pid(dir) {
        // If the server is already shutting down, the signal has no effect. If the server has ended
        // by now, the error is ignored.
        let _ = kill_process(pid, Signal::INT);
        let awaited_event = format!("the end of Postgres, pid {pid}, of an earlier run");
        with_timeout(ORPHAN_LIMIT, &awaited_event, async {
            while earlier_server_pid(dir).is_some() {
                pause().await;
            }
            Ok(())
        })
        .await?;
    }
    // Postgres refuses to start if the process id in its pid file or in the lock file of its socket
    // belongs to a running process. Postgres accepts a pid file with the id of its own parent
    // process, which is this process. The rest of the pid file stays unchanged, because with it
    // Postgres checks that no child of the earlier server uses the shared memory.
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

/// The process id of a server that runs on this directory's cluster. The pid file may be outdated,
/// so the arguments of the process are checked.
fn earlier_server_pid(dir: &DataDir) -> Option<Pid> {
    let text = fs::read_to_string(dir.postgres_pid()).ok()?;
    let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    arguments
        .split(|byte| *byte == 0)
        .any(|argument| argument == dir.postgres_data().as_os_str().as_bytes())
        .then_some(pid)
}
