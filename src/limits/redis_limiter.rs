//! Limits that all replicas count together in Redis.
//!
//! - Rule: `take.lua` (`src/limits/take.lua`) decides whether a call is within its rate.
//! - Rule: `guess.lua` (`src/limits/guess.lua`) decides whether a guess at a password may begin,
//!   or how long it must wait.
//! - Rule: `wrong.lua` (`src/limits/wrong.lua`) counts a wrong guess, and decides the next wait.
//! - Rule: `right.lua` (`src/limits/right.lua`) deletes the counted failures after a right guess.

use std::time::Duration;

use fred::types::{FromValue, scripts::Script};

use super::Rate;
use crate::redis::{self, Redis};

/// The counters in Redis. Each operation is one script, so reading and writing are atomic.
/// Every key that a script writes expires.
pub(super) struct RedisLimiter {
    redis: Redis,
    take: Script,
    guess: Script,
    wrong: Script,
    right: Script,
}

type RedisResult<T> = Result<T, fred::error::Error>;

impl RedisLimiter {
    pub(super) fn new(redis: Redis) -> Self {
        Self {
            redis,
            take: redis::script(include_str!("take.lua")),
            guess: redis::script(include_str!("guess.lua")),
            wrong: redis::script(include_str!("wrong.lua")),
            right: redis::script(include_str!("right.lua")),
        }
    }

    /// Counts a call. Zero if this call is allowed; otherwise the time to wait.
    pub(super) async fn take(&self, key: &str, rate: Rate) -> RedisResult<Duration> {
        let arguments = vec![rate.interval().as_micros().to_string(), rate.calls.to_string()];
        let keys = vec![key.to_owned()];
        let wait: u64 = self.run(&self.take, keys, arguments).await?;
        // Bounds the wait in case Redis returns a wrong value: after `per` all calls are allowed.
        Ok(Duration::from_micros(wait).min(rate.per))
    }

    /// Begins a guess. Zero if this guess is allowed; otherwise the time to wait.
    pub(super) async fn guess(
        &self,
        keys: Vec<String>,
        arguments: Vec<u64>,
    ) -> RedisResult<Duration> {
        let arguments = arguments.iter().map(u64::to_string).collect::<Vec<_>>();
        let wait: u64 = self.run(&self.guess, keys, arguments).await?;
        Ok(Duration::from_millis(wait))
    }

    pub(super) async fn wrong(&self, keys: Vec<String>, arguments: Vec<u64>) -> RedisResult<()> {
        let arguments = arguments.iter().map(u64::to_string).collect::<Vec<_>>();
        self.run(&self.wrong, keys, arguments).await
    }

    pub(super) async fn right(
        &self,
        keys: Vec<String>,
        network_retention: Duration,
    ) -> RedisResult<()> {
        let arguments = vec![network_retention.as_secs().to_string()];
        self.run(&self.right, keys, arguments).await
    }

    async fn run<T: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<String>,
    ) -> RedisResult<T> {
        let result = script.evalsha_with_reload(self.redis.client(), keys, arguments);
        self.redis.observe("EVALSHA", result).await
    }
}
