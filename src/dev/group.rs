//! A process group that ends with this process.
//!
//! The leader of the group is a small shell that reads from a pipe. Only this process has the other
//! end of the pipe. The pipe closes when this process stops the group or dies, and then the shell
//! ends the group. The servers are started as members of the group, so no server can outlive this
//! process.
//!
//! The group also protects the servers from Ctrl-C in a terminal. Ctrl-C reaches only this process,
//! which then stops the servers in order.

use std::{
    fs::{self, File},
    os::unix::{fs::OpenOptionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, anyhow, bail};

use super::{
    data_dir::DataDir,
    wait::{pause, with_timeout},
};

/// The script of the leader. INT is the fast shutdown of Postgres and the regular shutdown of
/// Redis; QUIT is the immediate shutdown. After each signal the script waits up to ten seconds for
/// the end of the servers. Both arguments are files that exist while a server runs. The script
/// checks these files instead of process ids, because the system may reuse a process id.
const LEADER: &str = r#"
trap '' HUP INT QUIT TERM
read -r line
for signal in INT QUIT KILL; do
    kill -s "$signal" 0
    tries=0
    while [ "$tries" -lt 100 ]; do
        [ -e "$1" ] || [ -e "$2" ] || exit 0
        sleep 0.1
        tries=$((tries + 1))
    done
done
"#;

/// Timeout of stopping the group. The leader sends KILL after 20 seconds.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Maximum number of log lines in an error.
const LOG_LINES: usize = 15;

/// The group and its members. A drop ends the members, without waiting for their end.
#[derive(Debug)]
pub(super) struct Group {
    /// The shell. Its `stdin` is the end of the pipe that keeps the group alive.
    leader: Child,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

impl Group {
    /// Starts the leader.
    ///
    /// # Errors
    ///
    /// Fails when there is no /bin/sh.
    pub(super) fn new(dir: &DataDir) -> anyhow::Result<Self> {
        let leader = Command::new("/bin/sh")
            .args(["-c", LEADER, "tenantry-dev"])
            .arg(dir.postgres_pid())
            .arg(dir.redis_socket())
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            // If the leader inherited the output of this process, a program that reads this output
            // to its end would also wait for the leader.
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("/bin/sh")?;
        Ok(Self { leader, members: Vec::new() })
    }

    /// The id of the group, for a `process_group` call.
    ///
    /// # Errors
    ///
    /// Fails when the process id exceeds an `i32`, which does not occur.
    pub(super) fn id(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.leader.id())?)
    }

    /// Starts a server as a member. Its output replaces the content of the file `log`.
    ///
    /// # Errors
    ///
    /// Fails when the program cannot be started or the log cannot be written.
    pub(super) fn spawn(
        &mut self,
        name: &'static str,
        log: PathBuf,
        mut command: Command,
    ) -> anyhow::Result<()> {
        let output = File::options()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&log)
            .with_context(|| log.display().to_string())?;
        let child = command
            .process_group(self.id()?)
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        self.members.push(Member { name, log, child });
        Ok(())
    }

    /// Checks that all members still run.
    ///
    /// # Errors
    ///
    /// Fails when a member has ended. The error contains the last lines of the member's log.
    pub(super) fn check_members(&mut self) -> anyhow::Result<()> {
        for Member { name, log, child } in &mut self.members {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended, {status}. {}", last_lines(log));
            }
        }
        Ok(())
    }

    /// Ends all members and waits for their end.
    ///
    /// # Errors
    ///
    /// Fails when a member had to be killed, because the leader did not end the member in time.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.leader.stdin.take());
        let result = with_timeout(STOP_LIMIT, "the end of the servers", async {
            for Member { child, .. } in &mut self.members {
                while child.try_wait()?.is_none() {
                    pause().await;
                }
            }
            Ok(())
        })
        .await;
        let mut killed = Vec::new();
        for Member { name, child, .. } in &mut self.members {
            if child.try_wait()?.is_none() {
                child.kill()?;
                child.wait()?;
                killed.push(*name);
            }
        }
        // The leader may still wait for a file that a crashed server did not remove.
        self.leader.kill()?;
        self.leader.wait()?;
        result.map_err(|error| anyhow!("{error}; killed {}", killed.join(" and ")))
    }
}

/// The last lines of a log, for the end of an error message.
fn last_lines(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last_lines = &lines[lines.len().saturating_sub(LOG_LINES)..];
    format!("The end of {}:\n{}", log.display(), last_lines.join("\n"))
}
