//! API keys: the credentials of service accounts.
//!
//! There are three kinds of keys: a secret ([`Secret`]), a public key whose owner signs assertions
//! ([`crate::tokens::AssertionKey`]), and a name in a client certificate ([`ClientNames`]). Service
//! accounts have no sessions. The tokens that are issued for a key have the id of the key in the
//! claim `sid`, and become invalid when the key expires or is revoked.

mod certificate;
mod secret;
pub mod store;

pub use certificate::{ClientNames, certificate_name};
pub use secret::Secret;
