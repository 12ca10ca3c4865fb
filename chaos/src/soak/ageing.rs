//! Makes ended rows old, so that the service's workers delete them during a run.
//!
//! The shortest retention is longer than a run: a day for sessions and idempotency records, an hour
//! for changes. So the run moves the times of rows that ended some minutes ago into the past.
//! Triggers are off during these updates, so that the service does not see them as changes.
//!
//! In Redis, the marks of accounts that signed in expire after 30 days. The run shortens this time
//! to five minutes.

use crate::stores::{DATABASE, Stores};

const SQL: &str = "
set session_replication_role = replica;
update sessions set revoked_at = revoked_at - interval '2 days'
where revoked_at between now() - interval '1 day' and now() - interval '2 minutes';
update idempotency_records set created_at = created_at - interval '2 days'
where created_at between now() - interval '1 day' and now() - interval '2 minutes';
update change_marks set recorded_at = recorded_at - interval '1 hour'
where recorded_at between now() - interval '50 minutes' and now() - interval '5 minutes';
";

const REDIS_COMMAND: &str = "EVAL \"for _, key in ipairs(redis.call('KEYS', 'guess:*')) do \
    if redis.call('TTL', key) > 86400 then redis.call('EXPIRE', key, 300) end end\" 0";

/// Makes the rows that ended some minutes ago older than their retention.
///
/// # Errors
/// Returns an error when a store is unavailable.
pub async fn make_ended_rows_old(stores: &Stores) -> anyhow::Result<()> {
    stores.execute(DATABASE, SQL).await?;
    stores.redis(REDIS_COMMAND).await.map(drop)
}
