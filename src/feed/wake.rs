//! Wakes the other replicas' readers early, through Redis pub/sub. A message
//! that is lost costs a part of a poll's interval and nothing else.

use std::{sync::Arc, time::Duration};

use fred::{
    clients::SubscriberClient,
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

const CHANNEL: &str = "tenantry:changes";

/// How long after an attempt to subscribe failed the next one comes.
const RETRY: Duration = Duration::from_secs(1);

/// How often a subscription is made again that may still be there.
const RENEWAL: Duration = Duration::from_secs(5);

/// The shortest time between two reads of the feed that messages ask for, so that a flood of
/// messages is not a flood of reads. Messages beyond the receiver's buffer are dropped, which
/// asks for one read.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// So many failures in a row are worth a line in the log.
const MANY: u32 = 3;

/// Says to all replicas that there is something to read. It does not wait.
pub(super) fn others(redis: &Redis) {
    let redis = redis.clone();
    tokio::spawn(async move {
        let told: Result<i64, _> =
            redis.observe("PUBLISH", redis.client().publish(CHANNEL, "")).await;
        if let Err(error) = told {
            tracing::debug!(%error, "the other replicas find out by themselves");
        }
    });
}

/// Notifies at each message, until the database's connections are closed.
pub(super) fn listen(
    client: &SubscriberClient,
    postgres: Postgres,
    woken: Arc<Notify>,
    subscribed: Gauge,
) {
    let mut messages = client.message_rx();
    tokio::spawn(keep_subscribed(client.clone(), postgres, subscribed));
    tokio::spawn(async move {
        loop {
            match messages.recv().await {
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    woken.notify_one();
                    time::sleep(MIN_INTERVAL).await;
                }
                Err(RecvError::Closed) => return,
            }
        }
    });
}

/// Subscribes at each connection, and now and then in between: whatever became of the
/// subscription, it is made again. To subscribe twice is to no effect.
async fn keep_subscribed(client: SubscriberClient, postgres: Postgres, subscribed: Gauge) {
    let mut connected = client.reconnect_rx();
    redis::keep_connected(client.clone());
    let (mut pause, mut failures) = (RETRY, 0);
    while !postgres.is_closed() {
        time::timeout(pause, connected.recv()).await.ok();
        let answer = client.subscribe(CHANNEL).await;
        subscribed.set(i64::from(answer.is_ok()));
        match answer {
            Ok(()) => {
                if failures >= MANY {
                    tracing::info!("wake-ups arrive again");
                }
                (pause, failures) = (RENEWAL, 0);
            }
            Err(error) => {
                failures += 1;
                if failures == MANY {
                    tracing::warn!(%error, "no wake-ups arrive: changes are found by polling");
                }
                pause = RETRY;
            }
        }
    }
}
