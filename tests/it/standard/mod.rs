//! The standard services.

mod deadline;
mod health;
mod reflection;
