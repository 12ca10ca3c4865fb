//! Which errors mean that the connection to Postgres was lost.

use crate::error::sqlstate;

/// Whether the error means that the connection was lost. Then the server may have restarted, and
/// another server may answer the next statement.
#[must_use]
pub fn is_connection_loss(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => true,
        // SQLSTATE 57P: shutdown, crash or start of the server. 08 and 58: connection poolers
        // report a lost connection.
        error => sqlstate(error)
            .is_some_and(|code| ["57P", "08", "58"].iter().any(|class| code.starts_with(class))),
    }
}
