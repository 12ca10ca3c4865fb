//! API keys: what service accounts prove themselves with.
//!
//! A key is a secret ([`Secret`]), a public key whose owner signs assertions
//! ([`crate::tokens::AssertionKey`]), or a name in a client certificate
//! ([`ClientNames`]). It plays the part of a session: the tokens that it leads to have
//! its id as their `sid`, and end with it.

mod certificate;
mod secret;
pub mod store;

pub use certificate::{ClientNames, certificate_name};
pub use secret::Secret;
