//! Parses the statements that a server sends to Postgres.

use std::collections::HashMap;

/// Code of a TLS request, which a client may send before the startup message.
const TLS_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Parses the messages of a client on one connection (PostgreSQL protocol 3.0).
#[derive(Default)]
pub struct StatementParser {
    /// Bytes that are not parsed yet.
    rest: Vec<u8>,
    /// Whether the startup message was parsed.
    started: bool,
    /// SQL of the prepared statements, by name.
    prepared: HashMap<Vec<u8>, String>,
}

impl StatementParser {
    /// Parses the next bytes of the connection. Returns the statements that the bytes execute.
    pub fn parse(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut executed = Vec::new();
        while let Some((kind, body)) = self.next_message() {
            let mut texts = body.split(|byte| *byte == 0);
            let mut next_text = || texts.next().unwrap_or_default().to_vec();
            match kind {
                // Parse: the statement's name, then its SQL.
                b'P' => _ = self.prepared.insert(next_text(), trimmed(&next_text())),
                // Bind: the portal's name, which is skipped, then the statement's name. An
                // execution follows.
                b'B' => executed.extend(
                    self.prepared
                        .get(&{
                            next_text();
                            next_text()
                        })
                        .cloned(),
                ),
                // Query: the SQL.
                b'Q' => executed.push(trimmed(&next_text())),
                _ => {}
            }
        }
        executed
    }

    /// Kind and body of the next complete message. The messages before the startup message, and
    /// the startup message, have no kind on the wire: their kind is 0.
    fn next_message(&mut self) -> Option<(u8, Vec<u8>)> {
        let kind_length = usize::from(self.started);
        let length: [u8; 4] = self.rest.get(kind_length..kind_length + 4)?.try_into().ok()?;
        let end = kind_length + usize::try_from(u32::from_be_bytes(length)).ok()?;
        let body = self.rest.get(kind_length + 4..end)?.to_vec();
        let kind = if self.started { self.rest[0] } else { 0 };
        self.started |= body != TLS_REQUEST;
        self.rest.drain(..end);
        Some((kind, body))
    }
}

fn trimmed(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim().to_owned()
}
