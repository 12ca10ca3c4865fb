//! The binary's commands, run as processes.

mod completions;
mod database;
mod healthcheck;
mod keys;
mod output;
mod reset_password;
mod restored;
mod serve;
mod settings;
mod version;

use std::{process::Stdio, time::Duration};

use tokio::process::Command;

/// Result of a command.
#[derive(Debug)]
pub struct CommandOutput {
    /// Whether the exit code is 0.
    pub ok: bool,
    pub out: String,
    pub err: String,
}

/// A command of the binary, with only these settings in its environment.
fn binary_command(arguments: &[&str], settings: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tenantry"));
    command
        .args(arguments)
        .env_clear()
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Runs a command and waits for its end.
pub async fn run(arguments: &[&str], settings: &[(&str, &str)]) -> CommandOutput {
    let limit = Duration::from_mins(1);
    let output = tokio::time::timeout(limit, binary_command(arguments, settings).output());
    let output = output.await.expect("the command ends").expect("the command starts");
    CommandOutput {
        ok: output.status.success(),
        out: String::from_utf8(output.stdout).expect("text"),
        err: String::from_utf8(output.stderr).expect("text"),
    }
}

/// The second word of the line that starts with this label, in a command's output.
pub fn word_after<'a>(text: &'a str, label: &str) -> &'a str {
    let line = text.lines().find(|line| line.starts_with(label)).expect(label);
    line.split_whitespace().nth(1).expect(label)
}
