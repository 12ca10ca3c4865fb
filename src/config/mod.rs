//! The settings of the program. Every value in a [`Config`] is valid.
#![warn(missing_docs)]

mod files;
mod mail;
mod memory_limit;
mod pairs;
mod passwords;
mod privacy;
mod retention;
mod server;
mod settings;
mod sign_in;
mod sources;
mod tokens;
mod traces;
mod transit;
mod values;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use secrecy::SecretString;
use tracing_subscriber::EnvFilter;

pub use mail::{Mail, MailDestination, TOKEN_PLACEHOLDER};
pub use passwords::Passwords;
pub use privacy::master_keys;
pub use retention::Retention;
pub use server::{Connections, Server, TlsPaths};
pub use settings::{SETTINGS, Setting};
pub use sign_in::TenantlessSignIn;
pub use tokens::{Lifetimes, Tokens, signing_keys};
pub use values::Values;

use crate::{
    limits::{Rates, TrustedProxies},
    privacy::MasterSource,
    telemetry,
};
use values::{Reader, to_usize};

/// The default address of metrics and probes over HTTP.
pub const DEFAULT_HTTP_ADDR: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

const REDIS_SCHEMES: &[&str] = &[
    "redis",
    "rediss",
    "redis+unix",
    "redis-cluster",
    "rediss-cluster",
    "redis-sentinel",
    "rediss-sentinel",
    "valkey",
    "valkeys",
    "valkey+unix",
    "valkey-cluster",
    "valkeys-cluster",
    "valkey-sentinel",
    "valkeys-sentinel",
];

/// All settings of `tenantry serve`.
pub struct Config {
    /// Addresses, TLS and limits of the server.
    pub server: Server,
    /// The connection to Postgres.
    pub database: Database,
    /// The URL of Redis.
    pub redis_url: SecretString,
    /// Signing keys, and lifetimes of tokens and sessions.
    pub tokens: Tokens,
    /// The sources of the master keys.
    pub master: MasterSource,
    /// Rules for passwords, and parameters of their hashing.
    pub passwords: Passwords,
    /// The settings of mails; `None` when no mails are sent.
    pub mail: Option<Mail>,
    /// Rate limits of each class of methods.
    pub rates: Rates,
    /// The proxies whose `x-forwarded-for` header is trusted.
    pub proxies: TrustedProxies,
    /// The trace collector; `None` when traces are off.
    pub traces: Option<telemetry::Settings>,
    /// Time from the start of a failed sign-in to its response.
    pub sign_in_failure_time: Duration,
    /// Whether the method `Register` may create tenants.
    pub tenant_registration: bool,
    /// Whether a sign-in that names no tenant looks up verified addresses or all addresses, or is
    /// refused.
    pub tenantless_sign_in: TenantlessSignIn,
    /// Limits of the in-memory caches.
    pub caches: CacheSizes,
    /// Approximate number of entries in each tenant's Redis stream of audit events; 0 turns the
    /// streams off.
    pub audit_stream_length: u32,
    /// How long expired and revoked rows, and audit events, are kept.
    pub retention: Retention,
}

/// Limits of the in-memory caches.
#[derive(Clone, Copy, Debug)]
pub struct CacheSizes {
    /// Maximum size of the subject cache, in bytes.
    pub subject_bytes: u64,
    /// Maximum number of verified access tokens in the token cache.
    pub tokens: usize,
}

/// The connection to Postgres.
pub struct Database {
    /// The URL. The user in the URL is `tenantry_app`, the database role of the service.
    pub url: SecretString,
    /// Maximum number of connections for calls.
    pub max_connections: u32,
}

impl Config {
    /// Parses and checks all settings that `serve` needs.
    ///
    /// # Errors
    /// Fails with one message that lists every invalid setting.
    pub fn check(values: &Values) -> anyhow::Result<Self> {
        let mut reader = Reader::new(values);
        let key_service = transit::read(&mut reader);
        let server = Server::read(&mut reader);
        let config = Self {
            sign_in_failure_time: failure_time(&mut reader, server.request_timeout),
            server,
            database: Database {
                url: reader.url("DATABASE_URL", crate::pg::SCHEMES, crate::pg::check_url),
                max_connections: reader.number("DATABASE_MAX_CONNECTIONS", 1, 1000),
            },
            redis_url: reader.url("REDIS_URL", REDIS_SCHEMES, crate::redis::check_url),
            tokens: Tokens::read(&mut reader, key_service.clone()),
            master: privacy::read(&mut reader, key_service),
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
            tenantless_sign_in: reader.read("TENANTLESS_SIGN_IN", str::parse),
            caches: CacheSizes {
                subject_bytes: reader.number("MEMORY_SUBJECT_BYTES", 16 * 1024, u32::MAX).into(),
                tokens: to_usize(reader.number("MEMORY_TOKENS", 1, 100_000_000)),
            },
            audit_stream_length: reader.number("AUDIT_STREAM_LENGTH", 0, 1_000_000),
            retention: Retention::read(&mut reader),
        };
        // The settings of logging are checked here, so that their errors are in the same list.
        reader.choice("LOG_FORMAT", "json", "human");
        reader.read("LOG_LEVEL", |text| match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(()),
            Err(_) => Err("must be error, warn, info, debug, trace or a tracing filter".into()),
        });
        pairs::check(&config.tokens, &config.server, &mut reader);
        files::check(&config.tokens.keys, &mut reader);
        reader.finish()?;
        Ok(config)
    }
}

/// Reads the setting `name` as the URL of a Postgres.
///
/// # Errors
/// Fails when the setting is not set or not the URL of a Postgres.
pub fn postgres_url(values: &Values, name: &str) -> anyhow::Result<SecretString> {
    let mut reader = Reader::new(values);
    let url = reader.url(name, crate::pg::SCHEMES, crate::pg::check_url);
    reader.finish()?;
    Ok(url)
}

/// Reads [`Config::sign_in_failure_time`]: from 1 ms to 10 s, and at most the request timeout.
fn failure_time(reader: &mut Reader<'_>, request_timeout: Duration) -> Duration {
    const MIN: Duration = Duration::from_millis(1);
    let max = request_timeout.min(Duration::from_secs(10));
    reader.read("SIGN_IN_FAILURE_TIME", |text| match humantime::parse_duration(text) {
        Ok(time) if (MIN..=max).contains(&time) => Ok(time),
        _ => {
            let max = humantime::format_duration(max);
            Err(format!("must be a time like 1s, at least 1ms and at most {max}"))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_lists_all_invalid_settings() {
        let mut values = Values::default();
        for setting in SETTINGS {
            values.set(setting.name, setting.default.unwrap_or("x"));
        }
        values.set("REDIS_URL", "redis://localhost");
        // The files must be readable, and `/dev/null` is.
        for setting in SETTINGS.iter().filter(|setting| setting.name.ends_with("_KEY_PATH")) {
            values.set(setting.name, setting.default.unwrap_or("/dev/null"));
        }
        values.set("ARGON2_MEMORY_KIB", "1024");
        values.set("JWT_ACCESS_EXPIRES_IN", "soon");
        values.set("DATABASE_URL", "");

        let message = Config::check(&values).err().map(|e| e.to_string()).unwrap_or_default();

        for name in ["ARGON2_MEMORY_KIB", "JWT_ACCESS_EXPIRES_IN", "DATABASE_URL must be set"] {
            assert!(message.contains(name), "{message}");
        }
        assert_eq!(message.lines().count(), 4, "a heading and the three settings: {message}");
    }
}
