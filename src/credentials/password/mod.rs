//! The password hashes of users. The hashes have their own table, so that a query for users reads
//! no hash.

mod store;

pub use store::{find_candidate, get, replace, set};
