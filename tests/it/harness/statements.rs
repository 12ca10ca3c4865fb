//! The statements that a server sends to Postgres, read off the wire.

use std::collections::HashMap;

/// The code of a request for TLS, which comes before the start of the protocol.
const TLS_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// Reads what a client sends on one connection (PostgreSQL's protocol, 3.0).
#[derive(Default)]
pub struct Reader {
    rest: Vec<u8>,
    started: bool,
    prepared: HashMap<Vec<u8>, String>,
}

impl Reader {
    /// The statements whose execution these bytes ask for.
    pub fn read(&mut self, bytes: &[u8]) -> Vec<String> {
        self.rest.extend_from_slice(bytes);
        let mut executed = Vec::new();
        while let Some((kind, body)) = self.message() {
            let mut texts = body.split(|byte| *byte == 0);
            let mut text = || texts.next().unwrap_or_default().to_vec();
            match kind {
                b'P' => _ = self.prepared.insert(text(), sql(&text())),
                // The portal's name comes first.
                b'B' => executed.extend(
                    self.prepared
                        .get(&{
                            text();
                            text()
                        })
                        .cloned(),
                ),
                b'Q' => executed.push(sql(&text())),
                _ => {}
            }
        }
        executed
    }

    /// The next whole message: its kind, and what it says. The first ones have no
    /// kind.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let at = usize::from(self.started);
        let length: [u8; 4] = self.rest.get(at..at + 4)?.try_into().ok()?;
        let end = at + usize::try_from(u32::from_be_bytes(length)).ok()?;
        let body = self.rest.get(at + 4..end)?.to_vec();
        let kind = if self.started { self.rest[0] } else { 0 };
        self.started |= body != TLS_REQUEST;
        self.rest.drain(..end);
        Some((kind, body))
    }
}

fn sql(text: &[u8]) -> String {
    String::from_utf8_lossy(text).trim().to_owned()
}
