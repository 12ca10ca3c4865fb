//! Redis: a cache that may be unavailable, empty or slow at any time. No decision relies on
//! Redis alone, and no call waits long for Redis.
//!
//! Rule: `values.lua` (`src/redis/values.lua`) decides which values in Redis this program cannot
//! have written, and removes them.

mod full;
mod monitor;
mod sentinel;
mod silent;
mod url;

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
    interfaces::{ClientLike, LuaInterface},
    types::{
        Builder, ClusterHash, FromValue,
        config::{Config, Options, ReconnectError, ReconnectPolicy},
        scripts::Script,
    },
    util::redis_keyslot,
};
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use secrecy::{ExposeSecret, SecretString};
use tokio::time;

use crate::telemetry::Operations;
use full::Refusals;
use monitor::LastError;
use silent::UNRESPONSIVE_TIMEOUT;
pub use silent::replace_connection;

/// Runs commands, and records their names in metrics and traces. The arguments are not recorded.
/// Cheap to clone.
#[derive(Clone)]
pub struct Redis {
    client: Client,
    operations: Operations,
    pause: Arc<Pause>,
    /// The writes that Redis refuses because it has no memory left.
    refusals: Arc<Refusals>,
    /// 1 while Redis answers, else 0.
    up: Gauge,
}

/// The pause in which no command is sent, because Redis did not answer in time.
struct Pause {
    created_at: Instant,
    /// The end of the pause, in milliseconds since `created_at`.
    end_ms: AtomicU64,
}

impl Redis {
    /// Creates a client that connects and reconnects in the background. So the server starts even if
    /// Redis is unavailable.
    ///
    /// # Errors
    /// Fails when the URL is invalid.
    pub fn connect(url: &SecretString, operations: Operations) -> anyhow::Result<Self> {
        let client = builder(url)?.build()?;
        let pause = Arc::new(Pause { created_at: Instant::now(), end_ms: AtomicU64::new(0) });
        let (up, last_error) = (Gauge::default(), Arc::new(LastError::default()));
        let refusals = Arc::<Refusals>::default();
        let monitor = monitor::watch(client.clone(), last_error.clone(), up.clone());
        let connection = stay_connected(client.clone(), move |error| last_error.set(error));
        let refusals_to_log = refusals.clone();
        tokio::spawn(async move {
            // `connection` ends when `quit` is called on the client. The other futures run until
            // then.
            tokio::select! {
                () = connection => {}
                () = monitor => {}
                () = refusals_to_log.log_ends() => {}
            }
        });
        Ok(Self { client, operations, pause, refusals, up })
    }

    /// Registers the gauge of the connection.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Whether Redis answers: 1 or 0";
        registry.register("tenantry_redis_up", help, self.up.clone());
    }

    /// The client. Pass the future of each command to [`Redis::run`].
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a script. In a cluster, all keys must be in one slot.
    ///
    /// # Errors
    /// Like [`Redis::run`].
    pub async fn eval<T: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<String>,
    ) -> Result<T, Error> {
        let command = async {
            match script.evalsha(&self.client, keys.clone(), arguments.clone()).await {
                // A server does not know the script after a restart, and a replica does not know it
                // after its promotion. The text goes only to the server that has the keys: loading
                // the script on all servers of a cluster would wait for servers that have failed.
                Err(error) if error.details().starts_with("NOSCRIPT") => {
                    let lua = script.lua().cloned().unwrap_or_default();
                    self.client.eval(lua, keys, arguments).await
                }
                result => result,
            }
        };
        self.run("EVALSHA", command).await
    }

    /// Runs a command. In the pause after a timeout, the command is not sent.
    ///
    /// # Errors
    /// Returns the error of the command. In the pause, returns a timeout.
    pub async fn run<T>(
        &self,
        name: &'static str,
        command: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let operation = self.operations.begin("redis");
        if self.pause.is_active() {
            operation.end(name, "", Some("skipped".to_owned()));
            return Err(Error::new(
                ErrorKind::Timeout,
                "Redis did not answer an earlier command in time",
            ));
        }
        let result = command.await;
        let error = result.as_ref().err().map(|error| match error.kind() {
            ErrorKind::Timeout => {
                self.pause.start();
                "timeout".to_owned()
            }
            ErrorKind::IO | ErrorKind::Canceled => "connection".to_owned(),
            _ if full::is_out_of_memory(error) => {
                self.refusals.record();
                "out_of_memory".to_owned()
            }
            _ => "other".to_owned(),
        });
        operation.end(name, "", error);
        result
    }
}

impl Pause {
    fn is_active(&self) -> bool {
        self.elapsed_ms() < self.end_ms.load(Ordering::Relaxed)
    }

    fn start(&self) {
        self.end_ms.store(self.elapsed_ms() + PAUSE_MS, Ordering::Relaxed);
    }

    fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.created_at.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Creates a script that can call the functions of [`VALUES`].
#[must_use]
pub fn script(lua: &str) -> Script {
    Script::from_lua(format!("{VALUES}{lua}"))
}

/// Lua functions that read a key safely, even if another program has written to the key.
const VALUES: &str = include_str!("redis/values.lua");

/// Pause after a command that timed out, in milliseconds. No command is sent in the pause. So a
/// call that needs several commands waits for only one timeout.
const PAUSE_MS: u64 = 250;

/// Timeout of a command. After a timeout, the call continues without Redis.
const COMMAND_TIMEOUT: Duration = Duration::from_millis(50);

/// Maximum delay between two attempts to reconnect, in milliseconds.
const MAX_RECONNECT_DELAY_MS: u32 = 1_000;

/// Creates a client for subscriptions. The client has its own connection and does not connect yet.
///
/// # Errors
/// Fails when the URL is invalid.
pub fn subscriber(url: &SecretString) -> anyhow::Result<SubscriberClient> {
    Ok(builder(url)?.build_subscriber_client()?)
}

/// Checks a URL. The error describes the required format.
pub fn check_url(url: &SecretString) -> Result<(), &'static str> {
    parse(url).map(drop)
}

fn parse(url: &SecretString) -> Result<Config, &'static str> {
    url::parse(url.expose_secret())
}

/// Checks the connection on which a client receives messages. A subscribed client sends nothing
/// that has a response. So without this check, it would keep a connection to a server that is gone.
///
/// # Errors
/// Fails when the server does not answer.
pub async fn check_subscription(client: &SubscriberClient) -> Result<(), Error> {
    // In a cluster, the client receives the messages from the server of this slot.
    let slot = redis_keyslot(client.id().as_bytes());
    let options = Options {
        cluster_hash: client.is_clustered().then_some(ClusterHash::Custom(slot)),
        timeout: Some(UNRESPONSIVE_TIMEOUT),
        ..Options::default()
    };
    client.with_options(&options).ping(None).await
}

/// Keeps a client connected, in a background task, until `quit` is called on the client.
pub fn keep_connected(client: impl ClientLike + 'static) {
    tokio::spawn(stay_connected(client, |_| {}));
}

/// Connects a client again whenever it gives up. The client itself stops reconnecting after some
/// errors, such as a wrong password. Ends when `quit` is called on the client.
async fn stay_connected(client: impl ClientLike, on_error: impl Fn(&Error)) {
    loop {
        match client.connect().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => on_error(&error),
            // The task of the client panicked. The next iteration starts it again.
            Err(_) => {}
        }
        time::sleep(Duration::from_millis(MAX_RECONNECT_DELAY_MS.into())).await;
    }
}

fn builder(url: &SecretString) -> anyhow::Result<Builder> {
    let mut config = parse(url).map_err(|problem| anyhow::anyhow!("REDIS_URL {problem}"))?;
    // If the first attempt to connect fails, the client retries like after a lost connection.
    config.fail_fast = false;
    // A command that a server of a cluster redirects is sent once more.
    let attempts = if config.server.is_clustered() { 2 } else { 1 };
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|c| c.default_command_timeout = COMMAND_TIMEOUT)
        .with_connection_config(|c| {
            c.connection_timeout = Duration::from_secs(2);
            c.internal_command_timeout = Duration::from_secs(2);
            c.max_command_attempts = attempts;
            c.unresponsive.max_timeout = Some(UNRESPONSIVE_TIMEOUT);
            // A server returns this error when it was the master and is a replica now. Then the
            // client must find the new master.
            c.reconnect_errors = vec![ReconnectError::ReadOnly];
        })
        // No limit on the number of attempts (0). The delay begins at 50 ms and doubles each time.
        .set_policy(ReconnectPolicy::new_exponential(0, 50, MAX_RECONNECT_DELAY_MS, 2));
    Ok(builder)
}
