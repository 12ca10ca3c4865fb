//! Encryption of personal data at rest: a reader of the database, its write-ahead log or a
//! backup learns no personal data (ASVS 11.3, 14.2).
//!
//! Each tenant has a data key. The data key encrypts ("seals") the personal data in the tenant's
//! rows, and is the key of the blind indexes for the lookup of emails ([`Cipher`]). The table
//! `data_keys` stores the data key, wrapped by a master key. The master key is stored elsewhere
//! ([`MasterKeys`]): in a file, or in a key service, from which the key can't be read. [`DataKeys`]
//! caches the data keys in use. [`rewrap`] wraps all data keys by another master key.
//!
//! The store of each table seals and opens the values of the table. For example, `users/store.rs`
//! seals emails and names. `email.rs` computes the comparable form and the blind index of an email.
//!
//! The deletion of a tenant deletes its data key. The remaining personal data of the tenant is
//! then unreadable everywhere, except in backups from before the deletion.

mod cipher;
mod keys;
mod master;
pub mod openable;
pub mod rewrap;
mod store;

pub use cipher::{Cipher, Index, SealContext, bound_row_bytes};
pub use keys::{DataKeys, NewDataKey};
pub use master::{MasterKeys, MasterSource, add_key, ensure_key};
