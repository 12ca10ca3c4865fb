//! The process of a store: signals, and a new start with the same arguments.

use std::{
    ffi::{OsStr, OsString},
    fs,
    os::unix::{ffi::OsStrExt, process::CommandExt},
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, anyhow};
use rustix::process::{Pid, Signal, getpgid, kill_process};
use tokio::time::{sleep, timeout};

/// Timeout of the end of a process after a signal.
const END_LIMIT: Duration = Duration::from_secs(30);

/// The process of a store, and what is needed to start it again.
pub struct StoreProcess {
    pid: u32,
    pub program: PathBuf,
    /// The name with which the program is started (`argv[0]`). One file contains several programs
    /// of Redis, and the name selects the program.
    pub name: OsString,
    pub arguments: Vec<OsString>,
    /// The directory of the store's data.
    pub dir: PathBuf,
    pub user: u32,
    pub group: u32,
    /// The process group of the first process. The store ends with this group when this program
    /// ends.
    process_group: i32,
    /// The process, if this program started it again.
    child: Option<Child>,
}

impl StoreProcess {
    /// Reads how a running process was started.
    ///
    /// # Errors
    /// Returns an error when there is no such process.
    pub fn of_running(pid: u32, dir: PathBuf) -> anyhow::Result<Self> {
        let command_line = fs::read(format!("/proc/{pid}/cmdline"))?;
        let words = command_line.split(|byte| *byte == 0).filter(|part| !part.is_empty());
        let mut words = words.map(|part| OsStr::from_bytes(part).to_owned());
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let id = |name: &str| -> anyhow::Result<u32> {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let first = line.and_then(|line| line.split_whitespace().next());
            Ok(first.with_context(|| format!("no {name}"))?.parse()?)
        };
        Ok(Self {
            pid,
            program: fs::read_link(format!("/proc/{pid}/exe"))?,
            name: words.next().context("a process without a name")?,
            arguments: words.collect(),
            dir,
            user: id("Uid:")?,
            group: id("Gid:")?,
            process_group: getpgid(Some(to_pid(pid)?))?.as_raw_nonzero().get(),
            child: None,
        })
    }

    /// Sends a signal to the process and to its child processes. The process gets the signal
    /// first, so it starts no further child processes when the signal stops or kills it.
    ///
    /// # Errors
    /// Returns an error when the process has ended.
    pub fn signal_all(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(to_pid(self.pid)?, signal)?;
        for child in children_of(self.pid)? {
            // A child process may have ended by itself.
            kill_process(to_pid(child)?, signal).ok();
        }
        Ok(())
    }

    /// Kills the process and its child processes.
    ///
    /// # Errors
    /// Returns an error when the process has ended before.
    pub fn kill(&self) -> anyhow::Result<()> {
        // The child processes are found by their parent, so they are listed before it is killed.
        let children = children_of(self.pid)?;
        kill_process(to_pid(self.pid)?, Signal::KILL)?;
        for child in children {
            kill_process(to_pid(child)?, Signal::KILL).ok();
        }
        Ok(())
    }

    /// Waits until the process has ended.
    ///
    /// # Errors
    /// Returns an error when it does not end in time.
    pub async fn wait_until_ended(&mut self) -> anyhow::Result<()> {
        let ended = async {
            while is_running(self.pid) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let message = format!("{} did not end", self.program.display());
        timeout(END_LIMIT, ended).await.map_err(|_| anyhow!(message))?;
        if let Some(child) = &mut self.child {
            child.try_wait()?;
        }
        Ok(())
    }

    /// Starts the store again.
    ///
    /// # Errors
    /// Returns an error when the process cannot be started.
    pub fn start_again(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command
            .arg0(&self.name)
            .args(&self.arguments)
            .env_clear()
            .current_dir(&self.dir)
            .process_group(self.process_group)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if rustix::process::geteuid().is_root() {
            command.uid(self.user).gid(self.group);
        }
        let child = command.spawn().with_context(|| self.program.display().to_string())?;
        self.pid = child.id();
        self.child = Some(child);
        Ok(())
    }

    /// Ends the process, if this program started it again. The first process is ended by its
    /// starter.
    ///
    /// # Errors
    /// Returns an error when it does not end in time.
    pub async fn stop_if_started_again(&mut self) -> anyhow::Result<()> {
        if self.child.is_some() {
            kill_process(to_pid(self.pid)?, Signal::INT)?;
            self.wait_until_ended().await?;
        }
        Ok(())
    }
}

/// The directory of the programs of the newest installed Postgres; empty if they are in the PATH.
pub fn postgres_bin() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = versions
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    versions.sort();
    versions.pop().map(|(_, path)| path.join("bin")).unwrap_or_default()
}

/// Sends a signal to one process.
///
/// # Errors
/// Returns an error when the process has ended.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    Ok(kill_process(to_pid(pid)?, signal)?)
}

fn to_pid(pid: u32) -> anyhow::Result<Pid> {
    Pid::from_raw(i32::try_from(pid)?).context("process id 0")
}

/// Whether the process runs. A zombie (state `Z`) does not run: it has ended, and its parent has
/// not waited for it.
fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The state follows the name of the program, which is in parentheses and may contain spaces.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn children_of(parent: u32) -> anyhow::Result<Vec<u32>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // The state and the parent's process id follow the name of the program.
        let rest = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if rest.split(' ').nth(1) == Some(&parent.to_string()) {
            children.push(pid);
        }
    }
    Ok(children)
}
