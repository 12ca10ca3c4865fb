//! Lists the subjects that have a permission or a role.

mod store;

pub use store::{HeldRow, HolderRow, next_batch, of_roles};
