//! Registrations in existing tenants that wait for the proof of their email.
//!
//! The user is created only after the proof. So a waiting registration does not reserve its email,
//! and several registrations with the same email may wait. The first registration that is completed
//! gets the email.

mod store;

pub use store::{add, find, take};

use serde::{Deserialize, Serialize};

/// The data of a registration that waits for the proof.
#[derive(Serialize, Deserialize)]
pub struct Registration {
    pub email: String,
    pub display_name: String,
    pub password_hash: String,
}
