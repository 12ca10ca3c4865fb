//! K01: whatever the servers of all tests log is looked through for what nobody may
//! read there.

use std::{
    io::{self, Write},
    process,
    sync::{LazyLock, Once},
};

use regex::Regex;
use tracing_subscriber::EnvFilter;

use super::PASSWORD;

/// What the tests' people sign in with, and what the service hands out: emails, tokens,
/// API keys' secrets; and what it keeps of passwords and keys.
static SECRETS: LazyLock<Regex> = LazyLock::new(|| {
    let shapes = [
        &regex::escape(PASSWORD),
        r"[a-z0-9.+-]+@[a-z0-9.-]+\.(?:test|local)\b",
        r"eyJ[A-Za-z0-9_-]{8,}\.eyJ",
        r"tenantry_[A-Za-z0-9_-]{70}",
        r"\$argon2id\$",
        r"PRIVATE KEY",
    ];
    Regex::new(&shapes.join("|")).expect("a pattern")
});

/// Reads lines, and ends the process with the first that tells a secret: a test that
/// only failed would leave the others to hide it.
struct Reader;

impl Write for Reader {
    #[expect(clippy::print_stderr, reason = "it is the last word")]
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        if let Some(found) = SECRETS.find(&text) {
            eprintln!("a secret is in the log, {:?}: {text}", found.as_str());
            process::abort();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Looks through the log of this process from here on.
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter = EnvFilter::new("info,tenantry=trace");
        let log = tracing_subscriber::fmt().json().with_env_filter(filter);
        log.with_writer(|| Reader).init();
    });
}
