//! A tenant's users.

mod create;
pub mod credentials;
pub mod email;
mod lifecycle;
pub mod rpc;
pub mod store;
mod update;
