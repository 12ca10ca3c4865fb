//! A tenant's users.

pub mod credentials;
pub mod email;
pub mod rpc;
pub mod store;
