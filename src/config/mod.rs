//! Settings, checked: a [`Config`] that exists can be served with.

mod mail;
mod privacy;
mod server;
mod settings;
mod sign_in;
mod tokens;
mod traces;
mod transit;
mod values;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

pub use mail::{Mail, Post, TOKEN};
pub use privacy::master_keys;
pub use server::{Connections, Server, TlsPaths};
pub use settings::{SETTINGS, Setting};
pub use sign_in::TenantlessSignIn;
pub use tokens::{Lifetimes, Tokens};
pub use values::Values;

use crate::{
    limits::{Rates, TrustedProxies},
    privacy::MasterSource,
    telemetry,
};
use values::{Reader, size, threads};

/// Where metrics and probes are served when nobody says.
pub const DEFAULT_HTTP_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// All that `serve` needs to know.
pub struct Config {
    /// Where gRPC is served, and its limits.
    pub server: Server,
    /// Postgres.
    pub database: Database,
    /// Redis's URL.
    pub redis_url: SecretString,
    /// Keys and lifetimes.
    pub tokens: Tokens,
    /// Where the master keys are.
    pub master: MasterSource,
    /// What passwords must be, and how they are hashed.
    pub passwords: Passwords,
    /// Where mails go; `None` where none are sent.
    pub mail: Option<Mail>,
    /// How often somebody may ask for what costs much.
    pub rates: Rates,
    /// Whose word about addresses counts.
    pub proxies: TrustedProxies,
    /// Where traces go; `None` where they go nowhere.
    pub traces: Option<telemetry::Settings>,
    /// How long after its begin a failed sign-in is answered.
    pub sign_in_failure_time: Duration,
    /// Whether Register may create tenants.
    pub tenant_registration: bool,
    /// Which addresses count where a sign-in names no tenant.
    pub tenantless: TenantlessSignIn,
    /// What is kept in memory.
    pub memory: Memory,
    /// Entries that each tenant's stream of audit events keeps.
    pub audit_stream_length: u32,
}

/// What is kept in memory, at most.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    /// Bytes of what subjects hold.
    pub subject_bytes: u64,
    /// Access tokens that were verified.
    pub tokens: usize,
}

/// Postgres.
pub struct Database {
    /// The service's own connection.
    pub url: SecretString,
    /// The pool's size.
    pub max_connections: u32,
}

/// What passwords must be, and how they are hashed.
#[derive(Clone, Debug)]
pub struct Passwords {
    /// Shortest password, in characters; a tenant may ask for more.
    pub min_length: usize,
    /// argon2id memory, in KiB.
    pub memory_kib: u32,
    /// argon2id passes.
    pub iterations: u32,
    /// argon2id lanes.
    pub parallelism: u32,
    /// The file with the peppers, where there are any.
    pub pepper: Option<PathBuf>,
    /// Threads that hash.
    pub threads: usize,
    /// How many wait for one.
    pub queue: usize,
}

impl Config {
    /// Checks all settings that `serve` needs.
    ///
    /// # Errors
    /// One message that lists everything that is wrong.
    pub fn check(values: &Values) -> anyhow::Result<Self> {
        let mut reader = Reader::new(values);
        let service = transit::read(&mut reader);
        let server = Server::read(&mut reader);
        let config = Self {
            sign_in_failure_time: failure_time(&mut reader, server.request_timeout),
            server,
            database: Database {
                url: reader.url("DATABASE_URL", crate::pg::check_url),
                max_connections: reader.number("DATABASE_MAX_CONNECTIONS", 1, 1000),
            },
            redis_url: reader.url("REDIS_URL", crate::redis::check_url),
            tokens: Tokens::read(&mut reader, service.clone()),
            master: privacy::read(&mut reader, service),
            passwords: Passwords::read(&mut reader),
            mail: Mail::read(&mut reader),
            rates: Rates {
                sign_in: reader.read("RATE_LIMIT_SIGN_IN", str::parse),
                registration: reader.read("RATE_LIMIT_REGISTRATION", str::parse),
                refresh: reader.read("RATE_LIMIT_REFRESH", str::parse),
                introspection: reader.read("RATE_LIMIT_INTROSPECTION", str::parse),
                password_reset: reader.read("RATE_LIMIT_PASSWORD_RESET", str::parse),
                api_key: reader.read("RATE_LIMIT_API_KEY", str::parse),
            },
            proxies: reader.read("TRUSTED_PROXIES", str::parse),
            traces: traces::read(&mut reader),
            tenant_registration: reader.choice("TENANT_REGISTRATION", "open", "closed"),
            tenantless: reader.read("TENANTLESS_SIGN_IN", str::parse),
            memory: Memory {
                subject_bytes: reader.number("MEMORY_SUBJECT_BYTES", 16 * 1024, u32::MAX).into(),
                tokens: size(reader.number("MEMORY_TOKENS", 1, 100_000_000)),
            },
            audit_stream_length: reader.number("AUDIT_STREAM_LENGTH", 0, 1_000_000),
        };
        // What logging is started with, so that its mistakes are in the list.
        reader.choice("LOG_FORMAT", "json", "human");
        reader.read("LOG_LEVEL", |text| match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(()),
            Err(_) => Err("must be error, warn, info, debug, trace or a tracing filter".into()),
        });
        reader.finish()?;
        Ok(config)
    }
}

impl Passwords {
    /// Checks the settings about passwords alone.
    ///
    /// # Errors
    /// One message that lists everything that is wrong.
    pub fn check(values: &Values) -> anyhow::Result<Self> {
        let mut reader = Reader::new(values);
        let passwords = Self::read(&mut reader);
        reader.finish()?;
        Ok(passwords)
    }

    /// The floors are OWASP's: they hold whatever is configured.
    fn read(reader: &mut Reader<'_>) -> Self {
        Self {
            min_length: size(reader.number("PASSWORD_MIN_LENGTH", 8, 64)),
            memory_kib: reader.number("ARGON2_MEMORY_KIB", 19_456, 4 << 20),
            iterations: reader.number("ARGON2_ITERATIONS", 2, 100),
            parallelism: reader.number("ARGON2_PARALLELISM", 1, 64),
            pepper: reader.path_or_off("PASSWORD_PEPPER_PATH"),
            threads: threads(reader.number("HASHING_THREADS", 0, 1024)),
            queue: size(reader.number("HASHING_QUEUE", 1, 100_000)),
        }
    }
}

/// Between a millisecond and the time that requests have.
fn failure_time(reader: &mut Reader<'_>, request_timeout: Duration) -> Duration {
    const LEAST: Duration = Duration::from_millis(1);
    let most = request_timeout.min(Duration::from_secs(10));
    reader.read("SIGN_IN_FAILURE_TIME", |text| match humantime::parse_duration(text) {
        Ok(time) if (LEAST..=most).contains(&time) => Ok(time),
        _ => {
            let most = humantime::format_duration(most);
            Err(format!("must be a time like 1s, at least 1ms and at most {most}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_in_one_message() {
        let mut values = Values::default();
        for setting in SETTINGS {
            values.set(setting.name, setting.default.unwrap_or("x"));
        }
        values.set("REDIS_URL", "redis://localhost");
        values.set("ARGON2_MEMORY_KIB", "1024");
        values.set("JWT_ACCESS_EXPIRES_IN", "soon");
        values.set("DATABASE_URL", "");

        let message = Config::check(&values).err().map(|e| e.to_string()).unwrap_or_default();

        for name in ["ARGON2_MEMORY_KIB", "JWT_ACCESS_EXPIRES_IN", "DATABASE_URL must be set"] {
            assert!(message.contains(name), "{message}");
        }
        assert_eq!(message.lines().count(), 4, "{message}");
    }
}
