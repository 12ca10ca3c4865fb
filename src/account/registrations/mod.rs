//! Registrations in existing tenants that wait for the proof of their email.
//!
//! There is no user before the proof, so a registration takes the email from nobody, and several
//! registrations with one email may wait. The first one that is completed gets the email.

mod store;

pub use store::{add, find, take};

use serde::{Deserialize, Serialize};

/// The data of a registration that waits.
#[derive(Serialize, Deserialize)]
pub struct Registration {
    pub email: String,
    pub display_name: String,
    pub password_hash: String,
}
