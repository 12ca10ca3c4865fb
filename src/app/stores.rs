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

/// Maximum time for which the server waits for Redis when it starts.
const REDIS_START_TIMEOUT: Duration = Duration::from_millis(500);

/// The connections to the stores. Cheap to clone.
#[derive(Clone)]
pub struct Stores {
    pub db: Db,
    pub(super) redis: Redis,
    /// Connections that only the change feed uses, so that it never waits for a call.
    feed_db: Postgres,
    subscriber: SubscriberClient,
}

impl Stores {
    /// Creates the connection pools. Connections to Postgres are opened at their first use. The
    /// client of Redis connects in the background.
    ///
    /// # Errors
    /// Fails when a URL is invalid.
    pub(super) fn new(
        config: &Config,
        data_keys: Arc<DataKeys>,
        operations: &Operations,
    ) -> anyhow::Result<Self> {
        let db = Db::connect(&config.database.url, config.database.max_connections)?
            .with_data_keys(data_keys)
            .with_operations(operations.clone());
        Ok(Self {
            feed_db: db.postgres().with_own_pool(feed::CONNECTIONS),
            db,
            redis: Redis::connect(&config.redis_url, operations.clone())?,
            subscriber: redis::subscriber(&config.redis_url)?,
        })
    }

    /// The stores from which the change feed reads.
    pub(super) fn sources(&self) -> Sources<'_> {
        Sources {
            postgres: self.feed_db.clone(),
            redis: self.redis.clone(),
            subscriber: &self.subscriber,
        }
    }

    /// Waits until Redis is connected, at most for [`REDIS_START_TIMEOUT`]. Until then, the
    /// rate limits count only the calls of this replica, not those of the other replicas.
    pub async fn wait_for_redis(&self) {
        let connected = self.redis.client().wait_for_connect();
        if !matches!(time::timeout(REDIS_START_TIMEOUT, connected).await, Ok(Ok(()))) {
            tracing::warn!("starting without Redis; the server connects when Redis is available");
        }
    }

    /// Closes the connections.
    pub async fn close(&self) {
        self.db.close().await;
        self.feed_db.close().await;
        // If this fails, no data is lost, because all data in Redis is a cache, a counter or a
        // copy.
        self.redis.client().quit().await.ok();
        self.subscriber.quit().await.ok();
    }
}
