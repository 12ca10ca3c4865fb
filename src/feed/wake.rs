//! Wakes the followers of other replicas through Redis pub/sub. A lost message delays a read by
//! at most one poll interval and has no other effect.

use std::{sync::Arc, time::Duration};

use fred::{
    clients::SubscriberClient,
    error::{Error, ErrorKind},
    interfaces::{EventInterface, PubsubInterface},
};
use prometheus_client::metrics::gauge::Gauge;
use tokio::{
    sync::{Notify, broadcast::error::RecvError},
    time,
};

use crate::{
    pg::Postgres,
    redis::{self, Redis},
};

/// The Redis channel of the wake-ups for one database. Several deployments may use one Redis:
/// without the name of the database, each commit would wake the replicas of all of them.
pub(super) fn channel(postgres: &Postgres) -> Arc<str> {
    format!("tenantry:changes:{}", postgres.database_name()).into()
}

/// Pause after a failed attempt to subscribe.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Timeout of an attempt to subscribe.
const SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(3);

/// Interval at which an existing subscription is renewed.
const RENEWAL_INTERVAL: Duration = Duration::from_secs(5);

/// Minimum time between two wake-ups, so that many messages do not cause many reads. Messages for
/// which the receiver's buffer has no space are dropped, and together cause one wake-up.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// Number of consecutive failures after which a warning is logged.
const FAILURES_BEFORE_WARNING: u32 = 3;

/// Wakes all replicas that listen on this channel. Does not wait for Redis.
pub(super) fn notify_replicas(redis: &Redis, channel: &str) {
    let (redis, channel) = (redis.clone(), channel.to_owned());
    tokio::spawn(async move {
        let result: Result<i64, _> =
            redis.run("PUBLISH", redis.client().publish(channel, "")).await;
        if let Err(error) = result {
            tracing::debug!(%error, "other replicas not woken: they poll");
        }
    });
}

/// Notifies `wake_up` at each message, until the client is closed.
pub(super) fn listen(
    client: &SubscriberClient,
    channel: Arc<str>,
    postgres: Postgres,
    wake_up: Arc<Notify>,
    subscribed: Gauge,
) {
    let mut messages = client.message_rx();
    tokio::spawn(keep_subscribed(client.clone(), channel, postgres, subscribed));
    tokio::spawn(async move {
        loop {
            match messages.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    wake_up.notify_one();
                    time::sleep(MIN_INTERVAL).await;
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Subscribes after each new connection, and again at regular intervals in case the subscription
/// was lost. A repeated subscription has no effect.
async fn keep_subscribed(
    client: SubscriberClient,
    channel: Arc<str>,
    postgres: Postgres,
    subscribed: Gauge,
) {
    let mut reconnects = client.reconnect_rx();
    redis::keep_connected(client.clone());
    let (mut pause, mut failures) = (RETRY_PAUSE, 0);
    while !postgres.is_closed() {
        // Waits for a new connection, but not longer than the pause.
        time::timeout(pause, reconnects.recv()).await.ok();
        let subscription = time::timeout(SUBSCRIBE_TIMEOUT, subscribe(&client, &channel)).await;
        let result = subscription
            .unwrap_or_else(|_| Err(Error::new(ErrorKind::Timeout, "no answer in time")));
        subscribed.set(i64::from(result.is_ok()));
        match result {
            Ok(()) => {
                if failures >= FAILURES_BEFORE_WARNING {
                    tracing::info!("wake-ups arrive again");
                }
                (pause, failures) = (RENEWAL_INTERVAL, 0);
            }
            Err(error) => {
                failures += 1;
                if failures == FAILURES_BEFORE_WARNING {
                    tracing::warn!(%error, "no wake-ups arrive: changes are found by polling");
                }
                redis::replace_connection(&client).await;
                pause = RETRY_PAUSE;
            }
        }
    }
}

/// Subscribes, and checks the connection, because the client does not wait for the answer to a
/// subscription.
async fn subscribe(client: &SubscriberClient, channel: &str) -> Result<(), Error> {
    client.subscribe(channel).await?;
    redis::check_subscription(client).await
}
