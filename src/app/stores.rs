//! The connections to Postgres and Redis.

use std::{sync::Arc, time::Duration};

use fred::{clients::SubscriberClient, interfaces::ClientLike};
use tokio::time;

use crate::{
    config::Config,
    db::Db,
    feed::{self, Sources},
    pg::Postgres,
    privacy::DataKeys,
    redis::{self, Redis},
    telemetry::Operations,
};

/// Maximum time that the start waits for Redis.
const REDIS_AT_START: Duration = Duration::from_millis(500);

/// The connections to the stores. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    pub db: Db,
    pub(super) redis: Redis,
    /// Connections of the change feed, which no call can use up.
    feed_db: Postgres,
    subscriber: SubscriberClient,
}

impl Stores {
    /// Makes the pools. Connections are opened at their first use.
    ///
    /// # Errors
    /// When a URL is invalid.
    pub(super) fn new(
        config: &Config,
        data_keys: Arc<DataKeys>,
        operations: &Operations,
    ) -> anyhow::Result<Self> {
        let url = &config.database.url;
        Ok(Self {
            db: Db::connect(url, config.database.max_connections)?
                .with_data_keys(data_keys)
                .with_operations(operations.clone()),
            feed_db: Postgres::connect(url, feed::CONNECTIONS)?.with_operations(operations.clone()),
            redis: Redis::new(redis::connect(&config.redis_url)?, operations.clone()),
            subscriber: redis::subscriber(&config.redis_url)?,
        })
    }

    /// What the change feed reads from.
    pub(super) fn sources(&self) -> Sources<'_> {
        Sources {
            postgres: self.feed_db.clone(),
            redis: self.redis.clone(),
            subscriber: &self.subscriber,
        }
    }

    /// Waits until Redis is connected, for [`REDIS_AT_START`] at most. Without it, this replica
    /// would count the first calls alone.
    pub async fn wait_for_redis(&self) {
        let connected = self.redis.client().wait_for_connect();
        if !matches!(time::timeout(REDIS_AT_START, connected).await, Ok(Ok(()))) {
            tracing::warn!("starting without Redis; the server connects when Redis is available");
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.db.close().await;
        self.feed_db.close().await;
        // A failure loses nothing: Redis holds only caches and counters.
        self.redis.client().quit().await.ok();
        self.subscriber.quit().await.ok();
    }
}
