//! Logs: one line per call with its id, method, code and duration, and one line per error.
//!
//! A separate thread writes the lines. Logging never waits for the reader of standard error:
//! when the thread's queue is full, lines are dropped and counted.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    fmt,
    io::{self, IsTerminal, Write},
    panic,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use anyhow::Context as _;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter},
};
use tracing::{Level, Metadata};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt, filter_fn},
    fmt as format,
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::config::Values;

/// Maximum number of lines in the queue.
const QUEUE: usize = 10_000;

/// Timeout of writing the last log line of a process.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// Counts the dropped lines.
static DROPPED_COUNTER: OnceLock<ErrorCounter> = OnceLock::new();

/// Keeps the log thread running. Dropping this guard waits until the lines in the queue are
/// written, for one second at most.
#[must_use]
#[derive(Debug)]
pub struct LogGuard {
    _guard: WorkerGuard,
}

/// Starts logging of events and panics to standard error, with the configured level and format.
///
/// # Errors
/// When the settings are invalid, or logging was started before.
pub fn init(values: &Values) -> anyhow::Result<LogGuard> {
    let level = values.get("LOG_LEVEL").unwrap_or("info");
    let filter = filter(level).with_context(|| format!("LOG_LEVEL can't be read: {level}"))?;
    let has_colors = io::stderr().is_terminal();
    let (writer, guard) = non_blocking_writer(io::stderr());
    let dropped_counter = writer.error_counter();
    let layer = format::layer().with_writer(writer).with_ansi(has_colors);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match values.get("LOG_FORMAT") {
        Some("json") => Box::new(layer.json().flatten_event(true)),
        Some("human") | None => Box::new(layer.with_target(false)),
        Some(_) => anyhow::bail!("LOG_FORMAT must be human or json"),
    };
    let layer = layer.with_filter(filter.and(filter_fn(may_log)));
    let result = tracing_subscriber::registry().with(layer).try_init();
    result.map_err(|_| anyhow::anyhow!("logging was started before"))?;
    DROPPED_COUNTER.set(dropped_counter).ok();
    panic::set_hook(Box::new(|panic_info| {
        let trace = Backtrace::capture();
        let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
        tracing::error!(backtrace = trace, "{panic_info}");
    }));
    Ok(guard)
}

/// Creates the filter for the configured level. The Redis client `fred` logs each error of a
/// connection. `redis/monitor.rs` logs the same failure once and in plain words. So the lines of
/// the client are written only if the level contains `fred`.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let filter = EnvFilter::builder().parse(level)?;
    Ok(if level.contains("fred") { filter } else { filter.add_directive("fred=off".parse()?) })
}

/// Creates a writer that never blocks, in front of a writer that may block. Each write must be one
/// line.
pub fn non_blocking_writer(writer: impl Write + Send + 'static) -> (NonBlocking, LogGuard) {
    let builder = NonBlockingBuilder::default().buffered_lines_limit(QUEUE).lossy(true);
    let (non_blocking, guard) = builder.thread_name("log").finish(writer);
    (non_blocking, LogGuard { _guard: guard })
}

/// Writes a line to standard error. Gives up after one second if no process reads standard error,
/// so that this process can end.
pub fn write_last_line(line: String) {
    let (sender, receiver) = mpsc::channel();
    let write = move || {
        writeln!(io::stderr(), "{line}").ok();
        sender.send(()).ok();
    };
    if thread::Builder::new().spawn(write).is_ok() {
        receiver.recv_timeout(FLUSH_TIMEOUT).ok();
    }
}

/// Whether an event may be logged. At level TRACE, libraries log whole frames with the data of
/// users, so TRACE events of libraries are never logged, whatever the settings.
fn may_log(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::DEBUG || metadata.target().starts_with("tenantry")
}

/// The metric of dropped lines.
#[derive(Debug)]
pub struct DroppedLines;

impl Collector for DroppedLines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let help = "Log lines that were dropped because standard error was not read fast enough";
        let name = "tenantry_log_lines_dropped";
        let dropped = DROPPED_COUNTER.get().map_or(0, ErrorCounter::dropped_lines);
        let encoder = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(u64::try_from(dropped).unwrap_or(u64::MAX)).encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// A writer that blocks until it receives a message.
    struct StuckWriter(Receiver<()>);

    impl Write for StuckWriter {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.recv().ok();
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// N34: the lines of the Redis client appear only if the level contains its name, `fred`.
    #[test]
    fn lines_of_the_redis_client_are_logged_only_if_the_level_names_the_client() {
        let filter_text = |level| filter(level).expect("the level is valid").to_string();
        assert!(filter_text("info").contains("fred=off"));
        assert!(!filter_text("info,fred=debug").contains("fred=off"));
        // At least one of these malformed levels is refused.
        assert!(filter("info=").is_err() || filter("=,=").is_err());
    }

    /// N24: logging never waits for the reader of the log.
    #[test]
    fn lines_above_the_queue_limit_are_dropped_and_counted() {
        let (unblock, blocked) = channel();
        let (mut writer, guard) = non_blocking_writer(StuckWriter(blocked));
        let dropped_counter = writer.error_counter();
        for _ in 0..QUEUE + 100 {
            writer.write_all(b"a line").expect("the writer never fails");
        }
        // All 100 lines above the limit are dropped, or 99 if the log thread has already taken one
        // line from the queue.
        assert!(
            (99..=100).contains(&dropped_counter.dropped_lines()),
            "{}",
            dropped_counter.dropped_lines()
        );
        drop(unblock);
        drop(guard);
    }
}
