//! The password hashes of users. They have a table of their own, so that no list of users reads
//! a hash.

mod store;

pub use store::{candidate, get, replace, set};
