//! What operators see: traces, what is counted, and what watches it.

mod collector;
mod counts;
mod dashboards;
mod traces;

pub use collector::Collector;
