//! Logs: one line per call with its id, method, code and time, and whatever went
//! wrong.

use std::io::IsTerminal;

use anyhow::Context as _;
use tracing::{Level, Metadata};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

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
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colours);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match values.get("LOG_FORMAT") {
        Some("json") => Box::new(lines.json().flatten_event(true)),
        Some("human") | None => Box::new(lines.with_target(false)),
        Some(_) => anyhow::bail!("LOG_FORMAT must be human or json"),
    };
    let lines = lines.with_filter(filter.and(filter_fn(is_tame)));
    let started = tracing_subscriber::registry().with(lines).try_init();
    started.map_err(|_| anyhow::anyhow!("logging was started before"))
}

/// Whether what it says is for a log, whatever the settings ask for: on the finest level
/// libraries write whole frames, and what people sent is in them.
fn is_tame(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::DEBUG || metadata.target().starts_with("tenantry")
}
