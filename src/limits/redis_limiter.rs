//! Limits that all replicas count together in Redis.
//!
//! - Rule: `count_call.lua` (`src/limits/count_call.lua`) decides whether a call is within its
//!   rate.
//! - Rule: `begin_guess.lua` (`src/limits/begin_guess.lua`) decides whether a guess at a password
//!   may begin, or how long the guess must wait.
//! - Rule: `guess_failed.lua` (`src/limits/guess_failed.lua`) counts a wrong guess, and decides the
//!   next wait.
//! - Rule: `guess_succeeded.lua` (`src/limits/guess_succeeded.lua`) deletes the counted failures
//!   after a right guess.

use std::time::Duration;

use fred::types::{FromValue, scripts::Script};

use super::Rate;
use crate::redis::{self, Redis};

/// The counters in Redis. Each operation is one script, so its reads and writes are atomic. Every
/// key that a script writes expires.
pub(super) struct RedisLimiter {
    redis: Redis,
    count_call: Script,
    begin_guess: Script,
    guess_failed: Script,
    guess_succeeded: Script,
}

type RedisResult<T> = Result<T, fred::error::Error>;

impl RedisLimiter {
    pub(super) fn new(redis: Redis) -> Self {
        Self {
            redis,
            count_call: redis::script(include_str!("count_call.lua")),
            begin_guess: redis::script(include_str!("begin_guess.lua")),
            guess_failed: redis::script(include_str!("guess_failed.lua")),
            guess_succeeded: redis::script(include_str!("guess_succeeded.lua")),
        }
    }

    /// Counts the call if the call is within the rate, and returns zero. Otherwise counts nothing,
    /// and returns the time to wait.
    pub(super) async fn count_call(&self, key: &str, rate: Rate) -> RedisResult<Duration> {
        let arguments = vec![rate.interval().as_micros().to_string(), rate.calls.to_string()];
        let keys = vec![key.to_owned()];
        let wait: u64 = self.run(&self.count_call, keys, arguments).await?;
        // Bounds the wait in case Redis returns a wrong value: after `per` all calls are allowed.
        Ok(Duration::from_micros(wait).min(rate.per))
    }

    /// Begins the guess if a guess is allowed now, and returns zero. Otherwise counts nothing, and
    /// returns the time to wait.
    pub(super) async fn begin_guess(
        &self,
        keys: Vec<String>,
        arguments: Vec<u64>,
    ) -> RedisResult<Duration> {
        let arguments = arguments.iter().map(u64::to_string).collect::<Vec<_>>();
        let wait: u64 = self.run(&self.begin_guess, keys, arguments).await?;
        Ok(Duration::from_millis(wait))
    }

    /// Ends a guess. If the last argument is 1, also counts a failure and sets the next wait. If
    /// this argument is 0, the guess has no result.
    pub(super) async fn guess_failed(
        &self,
        keys: Vec<String>,
        arguments: Vec<u64>,
    ) -> RedisResult<()> {
        let arguments = arguments.iter().map(u64::to_string).collect::<Vec<_>>();
        self.run(&self.guess_failed, keys, arguments).await
    }

    /// Ends a guess whose password matched: deletes the counted failures, and marks the network as
    /// known for `network_retention`.
    pub(super) async fn guess_succeeded(
        &self,
        keys: Vec<String>,
        network_retention: Duration,
    ) -> RedisResult<()> {
        let arguments = vec![network_retention.as_secs().to_string()];
        self.run(&self.guess_succeeded, keys, arguments).await
    }

    async fn run<T: FromValue>(
        &self,
        script: &Script,
        keys: Vec<String>,
        arguments: Vec<String>,
    ) -> RedisResult<T> {
        self.redis.eval(script, keys, arguments).await
    }
}
