//! K01: no log line of any test server contains a secret or personal data.

use std::{
    io::{self, Write},
    process,
    sync::{LazyLock, Once},
};

use regex::Regex;
use tracing_subscriber::EnvFilter;

use super::PASSWORD;

/// Text that must not be in the log: the tests' password, email addresses, tokens, secrets of
/// API keys, password hashes and private keys.
static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    let patterns = [
        &regex::escape(PASSWORD),
        r"[a-z0-9.+-]+@[a-z0-9.-]+\.(?:test|local)\b",
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ",
        r"tenantry_[A-Za-z0-9_-]{70}",
        r"\$argon2id\$",
        r"PRIVATE KEY",
    ];
    Regex::new(&patterns.join("|")).expect("a pattern")
});

/// A log writer that aborts the process at the first line with a secret. The abort ends all
/// tests, so that no later output hides the leak.
struct LeakDetector;

impl Write for LeakDetector {
    #[expect(clippy::print_stderr, reason = "the process aborts next")]
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if let Some(secret) = SECRETS.find(&text) {
            eprintln!("a secret is in the log, {:?}: {text}", secret.as_str());
            process::abort();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Checks the log of this process from now on. Later calls do nothing.
pub fn start_detector() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::new("info,tenantry=trace");
        let log = tracing_subscriber::fmt().json().with_env_filter(filter);
        log.with_writer(|| LeakDetector).init();
    });
}
