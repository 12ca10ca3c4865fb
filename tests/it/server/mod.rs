//! The server as a whole: failures of Postgres and Redis, cancelled calls, shutdown.

mod abandoned;
mod cancelled;
mod large_message;
mod no_connections;
mod postgres_faults;
mod redis_failover;
mod redis_faults;
mod redis_tls;
mod request_id;
mod slow_message;
mod standby;
mod stop;
mod two_primaries;
mod unread_log;
mod wrong_clock;
