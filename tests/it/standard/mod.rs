//! The standard services.

mod health;
mod reflection;
