//! Description of the machine and of the versions of the measured programs.

use std::{fs, process::Command};

use serde::Serialize;
use tenantry::config::SETTINGS;

use crate::{cores::Cores, proc::field};

#[derive(Serialize)]
pub struct Machine {
    /// Time of the run, in UTC.
    #[serde(rename = "at")]
    pub measured_at: String,
    /// Model name of the processor.
    pub processor: String,
    /// Total memory, as `/proc/meminfo` prints it.
    pub memory: String,
    pub kernel: String,
    pub rustc: String,
    pub postgres: String,
    pub redis: String,
    /// The measured commit.
    pub commit: String,
    /// Assignment of the cores.
    pub cores: Cores,
    /// Settings of the server that this process's environment sets, as `NAME=value`.
    pub settings: Vec<String>,
}

impl Machine {
    /// Describes this machine.
    ///
    /// # Errors
    /// Returns an error when the time cannot be formatted.
    pub fn describe(cores: &Cores) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            field(text, name).unwrap_or("unknown").trim_start_matches([' ', '\t', ':']).to_owned()
        };
        let now = tenantry::clock::now();
        Ok(Self {
            measured_at: now.format(&time::format_description::well_known::Rfc3339)?,
            processor: value(&read("/proc/cpuinfo"), "model name"),
            memory: value(&read("/proc/meminfo"), "MemTotal:"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: program_output("rustc", &["--version"]),
            postgres: program_output("psql", &["--version"]),
            redis: program_output("redis-server", &["--version"]),
            commit: program_output("git", &["describe", "--always", "--dirty"]),
            cores: cores.clone(),
            settings: SETTINGS
                .iter()
                .filter(|setting| !setting.secret)
                .filter_map(|setting| Some((setting.name, std::env::var(setting.name).ok()?)))
                .map(|(name, value)| format!("{name}={value}"))
                .collect(),
        })
    }
}

/// Output of a program, or `unknown` when the program is not installed.
fn program_output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
