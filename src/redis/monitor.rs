//! Watches the connection to Redis: a gauge, one warning when Redis is lost, one line when it is
//! back, and one line when Sentinel or Cluster made other servers the masters. Calls continue
//! without Redis, so the log would not show the outage otherwise.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fred::{
    clients::Client,
    error::{Error, ErrorKind},
    interfaces::{ClientLike, EventInterface},
    types::config::Server,
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::{self, MissedTickBehavior};

use super::{sentinel, silent::replace_connection};

/// Interval between two checks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Timeout of a check. The client's own timeout is shorter, but this timeout bounds a check even if
/// the client's timeout does not work.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Number of failed checks in a row after which Redis counts as lost. A single slow command is no
/// outage.
const FAILURES_UNTIL_LOST: u32 = 3;

/// Keeps the gauge current, and writes the lines of the log. `connect_errors` receives the errors
/// with which attempts to connect ended.
pub(super) async fn watch(client: Client, connect_errors: Arc<LastError>, up: Gauge) {
    let mut errors = client.error_rx();
    let (mut failures, mut masters) = (0, String::new());
    let mut ticks = time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let check = time::timeout(TIMEOUT, ping(&client)).await;
        // If the receiver lagged, the next check has the errors that are left.
        while let Ok((error, _)) = errors.try_recv() {
            connect_errors.set(&error);
        }
        if matches!(check, Ok(Ok(()))) {
            let redis = configured_addresses(&client);
            let current_masters = format_addresses(&client.active_connections());
            if failures >= FAILURES_UNTIL_LOST {
                tracing::info!(redis, masters = current_masters, "Redis is available again");
            } else if !masters.is_empty() && masters != current_masters {
                tracing::info!(redis, masters = current_masters, "Redis has another master");
            }
            masters = current_masters;
            up.set(1);
            failures = 0;
            connect_errors.take();
            continue;
        }
        failures += 1;
        if failures == FAILURES_UNTIL_LOST {
            up.set(0);
            let check_error = check.ok().and_then(Result::err).as_ref().map(describe);
            let sentinel_error = sentinel::connect_error(&client).await.as_ref().map(describe);
            let cause = sentinel_error.or(connect_errors.take()).or(check_error);
            let cause = cause.unwrap_or_else(|| "no answer".to_owned());
            let redis = configured_addresses(&client);
            tracing::warn!(redis, cause, "Redis is unavailable; calls continue without it");
        }
        if failures.is_multiple_of(FAILURES_UNTIL_LOST) {
            replace_connection(&client).await;
        }
    }
}

/// Asks Redis for an answer; in a cluster, asks each master.
async fn ping(client: &Client) -> Result<(), Error> {
    let masters = client.active_connections();
    if !client.is_clustered() || masters.is_empty() {
        return client.ping(None).await;
    }
    for master in masters {
        client.with_cluster_node(master).ping::<()>(None).await?;
    }
    Ok(())
}

/// The description of the last error of the connection.
#[derive(Default)]
pub(super) struct LastError(Mutex<Option<String>>);

impl LastError {
    pub(super) fn set(&self, error: &Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(describe(error));
    }

    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Describes an error without the text of a command.
fn describe(error: &Error) -> String {
    let kind = match error.kind() {
        ErrorKind::Auth => "the user or the password is wrong",
        // The client has no kind for this error.
        ErrorKind::IO if error.details().contains("InvalidCertificate") => {
            "the server's certificate is refused"
        }
        ErrorKind::IO => "can't connect, or the connection broke",
        ErrorKind::Tls => "the TLS handshake failed",
        ErrorKind::Timeout => "no answer in time",
        _ => "an error of the connection",
    };
    format!("{kind}: {}", error.details())
}

/// The hosts and ports in the setting `REDIS_URL`: of Redis, or of the sentinels.
fn configured_addresses(client: &Client) -> String {
    format_addresses(&client.client_config().server.hosts())
}

fn format_addresses(servers: &[Server]) -> String {
    let mut servers: Vec<_> =
        servers.iter().map(|server| format!("{}:{}", server.host, server.port)).collect();
    servers.sort();
    servers.join(",")
}
