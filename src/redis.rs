//! Redis: a cache that may be unavailable, empty or slow at any time. No decision relies on
//! Redis alone, and no call waits for it for long.
//!
//! Rule: `values.lua` (`src/redis/values.lua`) decides which values in Redis cannot be ours,
//! and removes them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fred::{
    clients::{Client, SubscriberClient},
    error::{Error, ErrorKind},
    interfaces::ClientLike,
    types::{
        Builder,
        config::{Config, ReconnectPolicy},
        scripts::Script,
    },
};
use secrecy::{ExposeSecret, SecretString};
use tokio::time;

use crate::telemetry::Operations;

/// Runs commands and records their names, but not their arguments, in metrics and traces. Cheap
/// to clone.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    operations: Operations,
    hanging: Arc<Hanging>,
}

/// The time until which no command is sent, because Redis did not answer.
struct Hanging {
    began: Instant,
    /// Milliseconds since `began`.
    until: AtomicU64,
}

impl Redis {
    /// Runs the commands of this client.
    #[must_use]
    pub fn new(client: Client, operations: Operations) -> Self {
        let hanging = Arc::new(Hanging { began: Instant::now(), until: AtomicU64::new(0) });
        Self { client, operations, hanging }
    }

    /// The client. Pass the future of each command to [`Redis::observe`].
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for a command. The command is not sent in the pause after a timeout.
    ///
    /// # Errors
    /// The command's error, or a timeout during the pause.
    pub async fn observe<T>(
        &self,
        command: &'static str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let running = self.operations.begin("redis");
        if self.hanging.is_on() {
            running.end(command, "", Some("skipped".to_owned()));
            return Err(Error::new(
                ErrorKind::Timeout,
                "Redis did not answer an earlier command in time",
            ));
        }
        let answer = answer.await;
        let error = answer.as_ref().err().map(|error| match error.kind() {
            ErrorKind::Timeout => {
                self.hanging.begin();
                "timeout".to_owned()
            }
            ErrorKind::IO | ErrorKind::Canceled => "connection".to_owned(),
            _ => "other".to_owned(),
        });
        running.end(command, "", error);
        answer
    }
}

impl Hanging {
    fn is_on(&self) -> bool {
        self.elapsed() < self.until.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        self.until.store(self.elapsed() + PAUSE_MS, Ordering::Relaxed);
    }

    fn elapsed(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A script that can use the functions in [`VALUES`].
#[must_use]
pub fn script(lua: &str) -> Script {
    Script::from_lua(format!("{VALUES}{lua}"))
}

/// Lua functions that read a key safely, whatever another program has written to it.
const VALUES: &str = include_str!("redis/values.lua");

/// Pause after a command that timed out, in milliseconds. No command is sent meanwhile, so a
/// call that needs several commands waits for one timeout only.
const PAUSE_MS: u64 = 250;

/// Timeout of a command. Postgres is asked after it.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(50);

/// Maximum pause between two attempts to reconnect, in milliseconds.
const MAX_RECONNECT_DELAY_MS: u32 = 1_000;

/// Creates a client for subscriptions with its own connection, which is not connected yet.
///
/// # Errors
/// When the URL is invalid.
pub fn subscriber(url: &SecretString) -> anyhow::Result<SubscriberClient> {
    Ok(builder(url)?.build_subscriber_client()?)
}

/// Checks a URL. The error says what the URL must look like.
pub fn check_url(url: &SecretString) -> Result<(), &'static str> {
    read(url).map(drop)
}

fn read(url: &SecretString) -> Result<Config, &'static str> {
    // The parser's own error may contain the password.
    Config::from_url(url.expose_secret()).map_err(|_| "must be a URL like redis://host:port")
}

/// Creates a client that connects, and always reconnects, in the background. The service starts
/// without Redis.
///
/// # Errors
/// When the URL is invalid.
pub fn connect(url: &SecretString) -> anyhow::Result<Client> {
    let client = builder(url)?.build()?;
    keep_connected(client.clone());
    Ok(client)
}

/// Connects until the client is told to quit. Connects again when the client gives up, which it
/// does after errors that it treats as final, such as a wrong password.
pub fn keep_connected(client: impl ClientLike + 'static) {
    tokio::spawn(async move {
        while !matches!(client.connect().await, Ok(Ok(()))) {
            time::sleep(Duration::from_millis(MAX_RECONNECT_DELAY_MS.into())).await;
        }
    });
}

fn builder(url: &SecretString) -> anyhow::Result<Builder> {
    let mut config = read(url).map_err(|wanted| anyhow::anyhow!("REDIS_URL {wanted}"))?;
    // Retry the first connection like every later one, instead of failing at start.
    config.fail_fast = false;
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
