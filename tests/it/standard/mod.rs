//! The standard services.

mod deadline;
mod health;
mod http;
mod reflection;
