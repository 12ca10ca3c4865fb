//! API keys: the credentials of service accounts.
//!
//! A key is one of three: a secret ([`Secret`]), a public key whose owner signs assertions
//! ([`crate::tokens::AssertionKey`]), or a name in a client certificate ([`ClientNames`]). A
//! key takes the place of a session: tokens that are issued for it have its id as `sid`, and
//! end with it.

mod certificate;
mod secret;
pub mod store;

pub use certificate::{ClientNames, certificate_name};
pub use secret::Secret;
