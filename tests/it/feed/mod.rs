mod commits;
mod delay;
mod metrics;
mod model;
mod replicas;
mod tokens;
mod trim;
mod watch;
