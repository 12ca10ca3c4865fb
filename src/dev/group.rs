//! A process group that does not outlive this process.
//!
//! Its leader is a small shell that waits on a pipe of which only this process holds the other end.
//! When that end closes, on purpose or because this process died, the shell ends the group. The
//! servers are born into the group, so there is no moment at which one of them could be missed.
//! Being in a group of their own also keeps a terminal's Ctrl-C from them: it reaches only this
//! process, which can then stop in order.

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
    wait::{pause, within},
};

/// The leader. INT is the fast shutdown of Postgres and the regular one of Redis, QUIT the
/// immediate one; each gets ten seconds. Both arguments are files that exist while a server runs;
/// they are looked at instead of process ids, which may be somebody else's by then.
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

/// Longer than the leader takes to get to KILL.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// How much of a log, in lines, goes into an error.
const LOG_LINES: usize = 15;

/// The group and its members. Dropping it ends the members, without waiting for that.
#[derive(Debug)]
pub(super) struct Group {
    /// Holds, as its `stdin`, the end of the pipe that keeps the group alive.
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
    /// When there is no /bin/sh.
    pub(super) fn new(dir: &DataDir) -> anyhow::Result<Self> {
        let leader = Command::new("/bin/sh")
            .args(["-c", LEADER, "tenantry-dev"])
            .arg(dir.postgres_pid())
            .arg(dir.redis_socket())
            .process_group(0)
            .current_dir("/")
            .stdin(Stdio::piped())
            // It must not hold open a pipe whose reader waits for this process's output to end.
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
    /// Never in practice: process ids are small.
    pub(super) fn id(&self) -> anyhow::Result<i32> {
        Ok(i32::try_from(self.leader.id())?)
    }

    /// Starts a server as a member, writing to the file `log`, which is emptied first.
    ///
    /// # Errors
    ///
    /// When the program cannot be started or the log cannot be written.
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

    /// Says whether all members still run.
    ///
    /// # Errors
    ///
    /// When one has ended, with the end of its log.
    pub(super) fn check(&mut self) -> anyhow::Result<()> {
        for Member { name, log, child } in &mut self.members {
            if let Some(status) = child.try_wait()? {
                bail!("{name} ended, {status}. {}", tail(log));
            }
        }
        Ok(())
    }

    /// Ends all members and waits until they are gone.
    ///
    /// # Errors
    ///
    /// When one had to be killed because the leader did not bring it to an end in time.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        drop(self.leader.stdin.take());
        let ended = within(STOP_LIMIT, "the end of the servers", async {
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
        // It may be waiting still for a file that a crashed server could not remove.
        self.leader.kill()?;
        self.leader.wait()?;
        ended.map_err(|error| anyhow!("{error}; killed {}", killed.join(" and ")))
    }
}

/// The last lines of a log, as the end of an error message.
fn tail(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
    format!("The end of {}:\n{}", log.display(), last.join("\n"))
}
