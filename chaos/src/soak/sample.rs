//! One sample: all figures of the system at one time.

use std::{fs, time::Duration};

use anyhow::Context;
use sqlx::{AssertSqlSafe, PgConnection, Row};
use tenantry::pg;

use super::{
    meter::Meter,
    series::{Figure, Limit},
};
use crate::{cluster::Cluster, http, replica::Replica, stores::DATABASE};

/// Timeout of the metrics of a replica.
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of a MiB.
const MIB: f64 = 1_048_576.0;

/// The tables of the audit trail. They grow with each change, because the trail is kept for ever.
pub const TRAIL: [&str; 2] = ["audit_events", "audit_chain"];

/// The tables whose rows wait for a worker, so that their number varies.
const VARYING: [&str; 5] =
    ["audit_outbox", "audit_queue", "changes", "idempotency_records", "sessions"];

/// Metrics of a replica: the name, the title of the chart, and the amount by which the value may
/// grow in addition to a tenth.
const METRICS: [(&str, &str, f64); 13] = [
    // A hashing thread keeps its memory of 19 MiB only while there is work. So the memory of two
    // threads may come and go.
    ("tenantry_hashing_memory_bytes", "bytes of the hashing threads", 40_000_000.0),
    ("tenantry_tasks", "tasks", 50.0),
    ("tenantry_connections", "client connections", 8.0),
    ("db_client_connection_count", "connections to Postgres", 6.0),
    ("tenantry_memory_subject_bytes", "bytes of the subject cache", 100_000.0),
    ("tenantry_feed_lag_seconds", "lag of the change feed, seconds", 1.0),
    ("tenantry_hashing_waiting", "passwords that wait", 10.0),
    ("tenantry_audit_unsealed_oldest_seconds", "age of the oldest unsealed event, seconds", 10.0),
    ("tenantry_audit_unsent_oldest_seconds", "age of the oldest unsent event, seconds", 10.0),
    ("tenantry_mails_waiting", "mails that wait", 20.0),
    ("tenantry_purge_tenants_waiting", "tenants that are purged", 20.0),
    ("tenantry_purge_oldest_seconds", "age of the oldest purge, seconds", 20.0),
    ("tenantry_log_lines_dropped_total", "dropped log lines", 0.0),
];

/// Takes samples.
pub struct Sampler {
    connection: PgConnection,
    /// Counts the rows and the bytes of all tables.
    sizes_sql: String,
}

fn figure(chart: &'static str, line: impl Into<String>, value: f64, amount: f64) -> Figure {
    let limit = Limit::Tolerance { share: 0.1, amount };
    Figure { chart, line: line.into(), value, limit }
}

impl Sampler {
    /// Reads the names of the tables.
    ///
    /// # Errors
    /// Returns an error when Postgres is unavailable.
    pub async fn new(cluster: &Cluster) -> anyhow::Result<Self> {
        let url = cluster.stores.owner_url(DATABASE).into();
        let mut connection = pg::connect_owner(&url).await?;
        let sql = "select relname::text from pg_class \
                   where relnamespace = 'public'::regnamespace and relkind = 'r' order by 1";
        let mut queries = Vec::new();
        for row in sqlx::raw_sql(sql).fetch_all(&mut connection).await? {
            let table: String = row.try_get(0)?;
            queries.push(format!(
                "select '{table}', count(*)::float8, \
                 pg_total_relation_size('{table}'::regclass)::float8 from {table}"
            ));
        }
        Ok(Self { connection, sizes_sql: queries.join(" union all ") })
    }

    /// Reads all figures.
    ///
    /// # Errors
    /// Returns an error when a store or a replica does not answer.
    pub async fn sample(
        &mut self,
        cluster: &Cluster,
        meter: &Meter,
    ) -> anyhow::Result<Vec<Figure>> {
        let mut figures = Vec::new();
        for (number, replica) in cluster.replicas.iter().enumerate() {
            let line = format!("replica {number}");
            let replica = replica.lock().await;
            figures.extend(process_figures(&replica, &line)?);
            figures.extend(metrics(&replica, &line).await.with_context(|| line.clone())?);
        }
        figures.extend(self.sizes().await?);
        figures.extend(redis_figures(cluster).await?);
        let latencies = meter.take_latencies();
        let chart = "latency, milliseconds";
        let limit = Limit::None { why: "the rate is fixed" };
        let value = super::to_f64(latencies.calls());
        figures.push(Figure { chart: "calls", line: "all".to_owned(), value, limit });
        // Other programs use the processors too, so a latency may double.
        for (line, quantile, amount) in [("p50", 0.5, 20.0), ("p99", 0.99, 100.0)] {
            let limit = Limit::Tolerance { share: 1.0, amount };
            let value = latencies.millis_at(quantile);
            figures.push(Figure { chart, line: line.to_owned(), value, limit });
        }
        let limit = Limit::None { why: "one slow call is no growth" };
        let value = latencies.millis_at(1.0);
        figures.push(Figure { chart, line: "longest".to_owned(), value, limit });
        Ok(figures)
    }

    /// Rows and sizes of the tables.
    async fn sizes(&mut self) -> anyhow::Result<Vec<Figure>> {
        let mut figures = Vec::new();
        let (mut trail_bytes, mut other_bytes) = (0.0, 0.0);
        let sql = AssertSqlSafe(self.sizes_sql.clone());
        for row in sqlx::raw_sql(sql).fetch_all(&mut self.connection).await? {
            let (table, rows, bytes): (String, f64, f64) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            if TRAIL.contains(&table.as_str()) {
                trail_bytes += bytes;
                let limit = Limit::None { why: "the audit trail is kept for ever" };
                let chart = "rows of the audit trail";
                figures.push(Figure { chart, line: table, value: rows, limit });
            } else {
                other_bytes += bytes;
                let amount = if VARYING.contains(&table.as_str()) { 300.0 } else { 50.0 };
                figures.push(figure("rows", table, rows, amount));
            }
        }
        let limit = Limit::None { why: "the audit trail is kept for ever" };
        let chart = "size of tables and indexes, MiB";
        let line = "audit trail".to_owned();
        figures.push(Figure { chart, line, value: trail_bytes / MIB, limit });
        figures.push(figure(chart, "other tables", other_bytes / MIB, 8.0));
        Ok(figures)
    }
}

/// Memory, descriptors and threads of a replica, from `/proc`.
fn process_figures(replica: &Replica, line: &str) -> anyhow::Result<Vec<Figure>> {
    let process = format!("/proc/{}", replica.pid()?);
    let status = fs::read_to_string(format!("{process}/status"))?;
    // Sizes are in KiB.
    let number = |name: &str| -> anyhow::Result<f64> {
        let value = status.lines().find_map(|line| line.strip_prefix(name));
        let value = value.and_then(|value| value.split_whitespace().next());
        value.with_context(|| format!("no {name}"))?.parse().context("not a number")
    };
    let descriptors = fs::read_dir(format!("{process}/fd"))?.count();
    Ok(vec![
        figure("memory (RSS), MiB", line, number("VmRSS:")? / 1024.0, 8.0),
        figure("private memory (RssAnon), MiB", line, number("RssAnon:")? / 1024.0, 8.0),
        figure("threads", line, number("Threads:")?, 8.0),
        figure("open descriptors", line, super::to_f64(descriptors as u64), 10.0),
    ])
}

async fn metrics(replica: &Replica, line: &str) -> anyhow::Result<Vec<Figure>> {
    let text =
        http::request(&replica.http_addr.to_string(), "GET", "/metrics", "", METRICS_TIMEOUT)
            .await?;
    let read = |(name, chart, amount)| {
        let value = sum_of(&text, name).with_context(|| format!("no metric {name}"))?;
        Ok(figure(chart, line, value, amount))
    };
    METRICS.into_iter().map(read).collect()
}

/// The sum of all values of a metric; `None` if the metric does not exist.
fn sum_of(text: &str, name: &str) -> Option<f64> {
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    });
    values.fold(None, |sum, value| Some(sum.unwrap_or_default() + value))
}

async fn redis_figures(cluster: &Cluster) -> anyhow::Result<Vec<Figure>> {
    let memory = cluster.stores.redis("INFO memory").await?;
    let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:"));
    let used: f64 = used.context("Redis does not report its memory")?.trim().parse()?;
    let keys = cluster.stores.redis("DBSIZE").await?;
    let keys: f64 = keys.trim().trim_start_matches(':').parse()?;
    Ok(vec![
        figure("memory of Redis, MiB", "used", used / MIB, 1.0),
        figure("keys in Redis", "all", keys, 100.0),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_is_the_sum_of_its_labels() {
        let text = "# TYPE a gauge\na{x=\"1\"} 2\na{x=\"2\"} 3.5\na_max 9\nb 1\n";
        assert_eq!(sum_of(text, "a"), Some(5.5));
        assert_eq!(sum_of(text, "b"), Some(1.0));
        assert_eq!(sum_of(text, "c"), None);
    }
}
