//! Redis: a cache that may be away, be empty or hang at any time. Nothing is
//! true because Redis says so alone, and nothing waits for it for long.
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

/// Commands, counted and traced by their names, without what they are given. Cheap to
/// clone.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    operations: Operations,
    hanging: Arc<Hanging>,
}

/// Until when Redis counts as hanging.
struct Hanging {
    began: Instant,
    /// In milliseconds since then.
    until: AtomicU64,
}

impl Redis {
    /// Commands of this client.
    #[must_use]
    pub fn new(client: Client, operations: Operations) -> Self {
        let hanging = Arc::new(Hanging { began: Instant::now(), until: AtomicU64::new(0) });
        Self { client, operations, hanging }
    }

    /// The client, for a command that [`Redis::observe`] then waits for.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for a command. While Redis hangs it is not sent.
    ///
    /// # Errors
    /// The command's own.
    pub async fn observe<T>(
        &self,
        command: &'static str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let running = self.operations.begin("redis");
        if self.hanging.is_on() {
            running.end(command, "", Some("skipped".to_owned()));
            return Err(Error::new(ErrorKind::Timeout, "Redis has just not answered in time"));
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

/// A script that can read what [`VALUES`] reads.
#[must_use]
pub fn script(lua: &str) -> Script {
    Script::from_lua(format!("{VALUES}{lua}"))
}

/// Functions that read a key no matter what somebody else has put there.
const VALUES: &str = include_str!("redis/values.lua");

/// After a command that was not answered in time none is sent for so many
/// milliseconds: a call that needs several waits for one.
const PAUSE_MS: u64 = 250;

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
    keep_connected(client.clone());
    Ok(client)
}

/// Connects, and again whenever the client gives up, until it is told to quit. It gives up
/// on errors that it takes for final, like a wrong password.
pub fn keep_connected(client: impl ClientLike + 'static) {
    tokio::spawn(async move {
        while !matches!(client.connect().await, Ok(Ok(()))) {
            time::sleep(Duration::from_millis(MAX_RECONNECT_DELAY_MS.into())).await;
        }
    });
}

fn builder(url: &SecretString) -> anyhow::Result<Builder> {
    let mut config = read(url).map_err(|wanted| anyhow::anyhow!("REDIS_URL {wanted}"))?;
    // The first connection is tried for as long as any other.
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
