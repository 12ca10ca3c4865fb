//! The holders of permissions and roles.

mod store;

pub use store::{HeldRow, HolderRow, next_batch, of_roles};
