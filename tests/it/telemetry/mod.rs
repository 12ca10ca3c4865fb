//! What operators observe: traces, metrics, dashboards and alerts.

mod alerts;
mod call_lines;
mod collector;
mod counts;
mod dashboards;
mod traces;

pub use collector::Collector;
