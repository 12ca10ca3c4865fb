//! Redis: a cache that may be away, be empty or hang at any time. Nothing is
//! true because Redis says so alone, and nothing waits for it for long.

use std::time::Duration;

use fred::{
    clients::{Client, SubscriberClient},
    interfaces::ClientLike,
    types::{
        Builder,
        config::{Config, ReconnectPolicy},
    },
};
use secrecy::{ExposeSecret, SecretString};

/// After this long a command counts as failed, and Postgres is asked.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(50);

/// The longest pause between attempts to reconnect.
const MAX_RECONNECT_DELAY_MS: u32 = 1_000;

/// A client for subscriptions, on a connection of its own, that is yet to
/// connect.
///
/// # Errors
/// When the URL can't be read.
pub fn subscriber(url: &SecretString) -> anyhow::Result<SubscriberClient> {
    Ok(builder(url)?.build_subscriber_client()?)
}

/// Whether a URL can be read; if not, what it should be.
pub fn check_url(url: &SecretString) -> Result<(), &'static str> {
    read(url).map(drop)
}

fn read(url: &SecretString) -> Result<Config, &'static str> {
    // The parser's own error may repeat a password.
    Config::from_url(url.expose_secret()).map_err(|_| "must be a URL like redis://host:port")
}

/// A client that connects, and reconnects for ever, in the background: the
/// service starts without Redis.
///
/// # Errors
/// When the URL can't be read.
pub fn connect(url: &SecretString) -> anyhow::Result<Client> {
    let client = builder(url)?.build()?;
    drop(client.connect());
    Ok(client)
}

fn builder(url: &SecretString) -> anyhow::Result<Builder> {
    let config = read(url).map_err(|wanted| anyhow::anyhow!("REDIS_URL {wanted}"))?;
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|c| c.default_command_timeout = COMMAND_TIMEOUT)
        .with_connection_config(|c| {
            c.connection_timeout = Duration::from_secs(2);
            c.internal_command_timeout = Duration::from_secs(2);
            c.max_command_attempts = 1;
            c.unresponsive.max_timeout = Some(Duration::from_secs(2));
        })
        .set_policy(ReconnectPolicy::new_exponential(0, 50, MAX_RECONNECT_DELAY_MS, 2));
    Ok(builder)
}
