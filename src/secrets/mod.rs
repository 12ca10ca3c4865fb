//! Keys and secrets: their files and their key service, their reload while the server runs, and
//! random secrets.

mod expiry;
pub mod files;
pub mod key_lines;
pub mod reload;
pub mod secret;
pub mod tls;
pub mod transit;
