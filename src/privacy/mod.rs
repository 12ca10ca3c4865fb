//! Encryption of personal data at rest: a reader of the database, its write-ahead log or a
//! backup learns no personal data (ASVS 11.3, 14.2).
//!
//! Each tenant has a data key. The data key encrypts ("seals") the personal data in the tenant's
//! rows, and keys the blind indexes for the lookup of emails ([`Cipher`]). The table `data_keys`
//! stores the data key, wrapped by a master key. The master key is stored elsewhere
//! ([`MasterKeys`]): in a file, or in a key service that never gives the key out. [`DataKeys`]
//! caches the data keys in use. [`rewrap`] wraps all data keys by another master key.
//!
//! The stores of the tables seal and open their values: `users/store.rs` for emails and names,
//! with the comparable form and the blind index of an email from `email.rs`.
//!
//! The deletion of a tenant deletes its data key. The remaining personal data of the tenant is
//! then unreadable everywhere, except in backups from before the deletion.

mod cipher;
mod keys;
mod master;
pub mod rewrap;
mod store;

pub use cipher::{Cipher, Index, SealContext, bound_row};
pub use keys::{DataKeys, NewDataKey};
pub use master::{MasterKeys, MasterSource, add_key, ensure_key};
