//! Roles: named sets of permissions, and who has them.

mod assign;
mod assignments;
mod edit;
pub mod guard;
pub mod rpc;
pub mod store;
pub mod system;

pub use assign::assign_new;
