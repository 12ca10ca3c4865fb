//! Sessions: what a sign-in opens, and what its tokens live and die with.

mod cache;
pub mod open;
pub mod rpc;
pub mod store;

pub use cache::{Lookup, SessionCache};
