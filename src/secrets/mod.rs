//! Keys and secrets: where they are read from, how they are replaced while the server runs,
//! and random ones.

pub mod files;
pub mod key_lines;
pub mod reload;
pub mod secret;
pub mod tls;
pub mod transit;
