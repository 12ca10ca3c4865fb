//! Personal data at rest: sealed, so that who reads the database, its log or a backup
//! reads none (ASVS 11.3, 14.2).
//!
//! Each tenant has a data key, which its rows' personal data is sealed under
//! ([`Cipher`]) and its emails are found by; the key is kept in the row `data_keys`,
//! wrapped by a master key that is kept elsewhere ([`MasterKeys`]): in a file, or in
//! a key service that never gives it out. [`DataKeys`] has those in use in memory;
//! [`rewrap`] wraps them under another master key.
//!
//! A tenant that is deleted loses its data key, and with it all that is left of its
//! personal data anywhere, but in backups from before.

mod cipher;
mod keys;
mod master;
pub mod rewrap;
mod store;

pub use cipher::{Cipher, Index, SealContext, bound_row};
pub use keys::{DataKeys, NewDataKey};
pub use master::{MasterKeys, MasterSource, add_key, ensure_key};
