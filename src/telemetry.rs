//! Logs: one line per call with its id, method, code and time, and whatever
//! went wrong. They hold ids, never emails, tokens or secrets.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::{EnvFilter, fmt};

use crate::config::Values;

/// Starts logging to standard error, as the settings say.
///
/// # Errors
/// When the settings can't be read, or logging was started before.
pub fn init(values: &Values) -> anyhow::Result<()> {
    let level = values.get("LOG_LEVEL").unwrap_or("info");
    let filter = EnvFilter::builder()
        .parse(level)
        .with_context(|| format!("LOG_LEVEL can't be read: {level}"))?;
    let colours = std::io::stderr().is_terminal();
    let builder = fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    let started = match values.get("LOG_FORMAT") {
        Some("json") => builder.json().flatten_event(true).try_init(),
        Some("human") | None => builder.with_target(false).try_init(),
        Some(_) => anyhow::bail!("LOG_FORMAT must be human or json"),
    };
    started.map_err(|_| anyhow::anyhow!("logging was started before"))
}
