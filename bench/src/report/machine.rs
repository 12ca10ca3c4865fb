//! On what it was measured.

use std::{fs, process::Command};

use serde::Serialize;
use tenantry::config::SETTINGS;

use crate::{cores::Cores, proc::field};

/// The machine and the versions.
#[derive(Serialize)]
pub struct Machine {
    /// When, in UTC.
    pub at: String,
    /// The processor.
    pub processor: String,
    /// Memory, as `/proc/meminfo` has it.
    pub memory: String,
    /// The kernel's version.
    pub kernel: String,
    /// The compiler's version.
    pub rustc: String,
    /// Postgres's version.
    pub postgres: String,
    /// Redis's version.
    pub redis: String,
    /// The commit that was measured.
    pub commit: String,
    /// Who ran where.
    pub cores: Cores,
    /// Settings that the environment changes for the server.
    pub settings: Vec<String>,
}

impl Machine {
    /// Describes this machine.
    ///
    /// # Errors
    /// When the time can't be written.
    pub fn describe(cores: &Cores) -> anyhow::Result<Self> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let value = |text: &str, name: &str| {
            field(text, name).unwrap_or("unknown").trim_start_matches([' ', '\t', ':']).to_owned()
        };
        let now = tenantry::clock::now();
        Ok(Self {
            at: now.format(&time::format_description::well_known::Rfc3339)?,
            processor: value(&read("/proc/cpuinfo"), "model name"),
            memory: value(&read("/proc/meminfo"), "MemTotal:"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            rustc: said("rustc", &["--version"]),
            postgres: said("psql", &["--version"]),
            redis: said("redis-server", &["--version"]),
            commit: said("git", &["describe", "--always", "--dirty"]),
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

/// What a program says, if it is there.
fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}
