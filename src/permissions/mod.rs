//! The decision: may this subject do this, in this tenant, now?
//!
//! [`Engine`] gathers what a subject holds, [`decide`] judges it without any
//! I/O, `rpc` speaks gRPC.

pub mod decide;
mod engine;
pub mod permission;
mod rpc;
pub mod scope;
mod standing;

use std::sync::Arc;

use crate::tokens::Keyring;

pub use engine::Engine;
pub use permission::Permission;
pub use scope::Scope;
pub use standing::{Grant, Standing};

/// Decides over gRPC.
pub struct Permissions {
    /// Knows what subjects hold.
    pub engine: Engine,
    /// Verifies the access tokens that stand for subjects.
    pub keyring: Arc<Keyring>,
}
