mod commits;
mod delay;
mod follower;
mod metrics;
mod model;
mod replicas;
pub mod tokens;
mod trim;
mod watch;
