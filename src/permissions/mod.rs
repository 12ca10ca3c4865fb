//! The decision: may this subject do this, in this tenant, now?
//!
//! [`Engine`] gathers what a subject holds, [`decide`] judges it without any
//! I/O, `rpc` speaks gRPC.

pub mod decide;
mod engine;
pub mod permission;
pub mod rpc;
pub mod scope;
mod standing;

pub use engine::Engine;
pub use permission::Permission;
pub use scope::Scope;
pub use standing::{Grant, Standing};
