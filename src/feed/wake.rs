//! Wakes the other replicas' readers early, through Redis pub/sub. A message
//! that is lost costs a part of a poll's interval and nothing else.

use std::sync::Arc;

use fred::{
    clients::SubscriberClient,
    interfaces::{ClientLike, EventInterface, PubsubInterface},
};
use tokio::sync::Notify;

use crate::redis::Redis;

const CHANNEL: &str = "tenantry:changes";

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

/// Notifies at each message, for as long as the client lives.
pub(super) fn listen(client: &SubscriberClient, woken: Arc<Notify>) {
    drop(client.connect());
    drop(client.manage_subscriptions());
    let mut messages = client.message_rx();
    let client = client.clone();
    tokio::spawn(async move {
        // Remembered by the client, and made again at each reconnection.
        client.subscribe(CHANNEL).await.ok();
        loop {
            match messages.recv().await {
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                    woken.notify_one();
                }
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
            }
        }
    });
}
