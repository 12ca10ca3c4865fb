//! Metrics of bounded resources: the used amount and the limit of each resource.

use std::{fmt, sync::Arc};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use sqlx::PgPool;

use crate::{passwords::Hasher, permissions::StandingCache};

/// Measures the connections to Postgres, the slots of the hashing queue, and the size of the
/// subject cache. The values are read when the metrics are scraped.
pub struct ResourceGauges {
    /// The Postgres connections for calls.
    pub connections: PgPool,
    /// The hashing queue.
    pub hasher: Hasher,
    /// The subject cache.
    pub standing_cache: Arc<StandingCache>,
}

impl fmt::Debug for ResourceGauges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResourceGauges").finish_non_exhaustive()
    }
}

impl Collector for ResourceGauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let size = u64::from(self.connections.size());
        let idle = u64::try_from(self.connections.num_idle()).unwrap_or(size).min(size);
        let help = "Connections to Postgres for calls";
        let mut counts = encoder.encode_descriptor(
            "db_client_connection_count",
            help,
            None,
            MetricType::Gauge,
        )?;
        for (state, count) in [("idle", idle), ("used", size - idle)] {
            let label = [("db_client_connection_state", state)];
            ConstGauge::new(count).encode(counts.encode_family(&label)?)?;
        }
        let max_connections = u64::from(self.connections.options().get_max_connections());
        let queue = self.hasher.usage();
        let cache_usage = self.standing_cache.usage();
        for (name, help, value) in [
            (
                "db_client_connection_max",
                "Maximum number of connections to Postgres for calls",
                max_connections,
            ),
            ("tenantry_hashing_queue", "Passwords that are being hashed or wait", queue.taken),
            ("tenantry_hashing_queue_max", "Slots of the hashing queue", queue.slots),
            ("tenantry_hashing_waiting", "Passwords that wait for a hashing thread", queue.waiting),
            (
                "tenantry_hashing_memory_bytes",
                "Working memory of the hashing threads",
                queue.memory_bytes,
            ),
            ("tenantry_memory_subjects", "Subjects in the cache", cache_usage.subjects),
            ("tenantry_memory_subject_bytes", "Bytes of the subject cache", cache_usage.bytes),
            (
                "tenantry_memory_subject_bytes_max",
                "Maximum number of bytes of the subject cache",
                cache_usage.capacity,
            ),
        ] {
            let encoder = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(encoder)?;
        }
        Ok(())
    }
}
