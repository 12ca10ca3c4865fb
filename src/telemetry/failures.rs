//! The log lines of work that is tried again and again: one line when it begins to fail, and one
//! line when it works again.

use std::{fmt::Display, mem};

/// Logs the first failure of an outage, and the first success after it. A worker that tries again
/// each second would fill the log with the same line.
#[derive(Debug)]
pub struct FailureLog {
    failure_text: &'static str,
    recovery_text: &'static str,
    is_failing: bool,
}

impl FailureLog {
    /// Creates the log of some work that has not failed yet, with the texts of its two lines.
    #[must_use]
    pub const fn new(failure_text: &'static str, recovery_text: &'static str) -> Self {
        Self { failure_text, recovery_text, is_failing: false }
    }

    /// Logs a result, unless the last result was of the same kind. Returns the value of a success.
    pub fn record<T>(&mut self, result: Result<T, impl Display>) -> Option<T> {
        let was_failing = mem::replace(&mut self.is_failing, result.is_err());
        match result {
            Ok(value) => {
                if was_failing {
                    tracing::info!("{}", self.recovery_text);
                }
                Some(value)
            }
            Err(error) => {
                if !was_failing {
                    tracing::warn!(%error, "{}", self.failure_text);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no writer panicked").extend(line);
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// N34: an outage has two lines, however often the work is tried, and also if the text of the
    /// error changes.
    #[test]
    fn an_outage_has_two_lines() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let mut log = FailureLog::new("can't work", "works again");
            assert_eq!(log.record(Ok::<_, &str>(1)), Some(1));
            for error in ["at 10:00", "at 10:01", "at 10:02"] {
                assert_eq!(log.record(Err::<i32, _>(error)), None);
            }
            for value in [2, 3] {
                assert_eq!(log.record(Ok::<_, &str>(value)), Some(value));
            }
            log.record(Err::<i32, _>("again"));
        });
        let text =
            String::from_utf8(lines.0.lock().expect("no writer panicked").clone()).expect("UTF-8");
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        let expected =
            ["WARN can't work error=at 10:00", "INFO works again", "WARN can't work error=again"];
        assert_eq!(lines, expected);
    }
}
