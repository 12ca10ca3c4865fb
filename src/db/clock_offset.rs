//! Compares the clock of this machine with the clock of Postgres. If the clock of this machine is
//! wrong, this replica refuses the tokens of other replicas, and they refuse the tokens of this
//! replica.

use std::{sync::atomic::AtomicU64, time::Duration};

use ::time::OffsetDateTime;
use prometheus_client::{metrics::gauge::Gauge, registry::Registry};
use tokio::time;

use super::Db;
use crate::{clock, concurrency::step::bounded, error::Result};

/// Interval between two comparisons.
const INTERVAL: Duration = Duration::from_secs(5);

/// Offset in seconds above which the log has a warning. Tokens have a leeway of 30 seconds, so the
/// warning comes before tokens are refused.
const MAX_OFFSET: f64 = 5.0;

/// Starts the comparison. It stops when the connections to Postgres are closed.
pub fn watch_clock(db: &Db, registry: &mut Registry) {
    let offset = Gauge::<f64, AtomicU64>::default();
    let help = "Seconds by which the clock of this machine is ahead of the clock of Postgres";
    registry.register("tenantry_clock_offset_seconds", help, offset.clone());
    tokio::spawn(watch(db.clone(), offset));
}

async fn watch(db: Db, gauge: Gauge<f64, AtomicU64>) {
    let mut was_wrong = false;
    while !db.is_closed() {
        match bounded(measure(&db)).await {
            Ok(offset) => {
                gauge.set(offset);
                let is_wrong = offset.abs() > MAX_OFFSET;
                if is_wrong && !was_wrong {
                    tracing::warn!(
                        seconds = offset,
                        "the clock of this machine differs from the clock of Postgres; \
                         replicas refuse the tokens of a replica with a wrong clock"
                    );
                } else if was_wrong && !is_wrong {
                    tracing::info!("the clock of this machine agrees with Postgres again");
                }
                was_wrong = is_wrong;
            }
            Err(error) => tracing::debug!(%error, "the clock can't be compared"),
        }
        time::sleep(INTERVAL).await;
    }
}

/// Returns the offset in seconds.
async fn measure(db: &Db) -> Result<f64> {
    let before = clock::now();
    let server = sqlx::query_scalar!(r#"select clock_timestamp() as "now!""#)
        .fetch_one(db.postgres().executor())
        .await?;
    Ok(offset(before, server, clock::now()))
}

/// The offset in seconds, positive when this machine is ahead. Postgres read its clock, `server`,
/// between the times `before` and `after` of this machine. If `server` is between these times, the
/// offset is 0. Otherwise the offset is the distance of `server` to the nearer time.
fn offset(before: OffsetDateTime, server: OffsetDateTime, after: OffsetDateTime) -> f64 {
    if server < before {
        (before - server).as_seconds_f64()
    } else if server > after {
        (after - server).as_seconds_f64()
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N26: a slow response of Postgres is not reported as a wrong clock.
    #[test]
    #[expect(clippy::float_cmp, reason = "whole seconds are exact")]
    fn a_slow_response_of_postgres_is_no_offset() {
        let at = |seconds| OffsetDateTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(offset(at(100), at(100), at(100)), 0.0);
        assert_eq!(offset(at(100), at(101), at(115)), 0.0);
        assert_eq!(offset(at(100), at(90), at(115)), 10.0);
        assert_eq!(offset(at(100), at(120), at(101)), -19.0);
    }
}
