//! The password hashes of users. The hashes have their own table, so that a query for users reads
//! no hash.

mod store;

pub use store::{candidate, get, replace, set};
