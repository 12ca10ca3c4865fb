//! Where a call comes from.

use std::{
    fmt::{self, Display},
    net::IpAddr,
};

use http::HeaderValue;
use uuid::Uuid;

use crate::{
    error::Result,
    privacy::{Cipher, SealContext},
};

/// Where a call comes from. Cheap to clone: most calls never need it as text.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Finds the request in the log.
    pub request_id: RequestId,
    /// The peer's address; `None` for a command.
    pub ip: Option<IpAddr>,
    /// What the peer calls itself.
    pub user_agent: Option<HeaderValue>,
}

impl Origin {
    /// The peer's address, sealed for an event.
    ///
    /// # Errors
    /// When the system has no random bytes.
    pub fn sealed_ip(&self, cipher: &Cipher, event: Uuid) -> Result<Option<Vec<u8>>> {
        let seal = |ip: IpAddr| {
            cipher.seal(SealContext::row("audit_events", &event), ip.to_string().as_bytes())
        };
        self.ip.map(seal).transpose()
    }

    /// The peer's user agent, 300 characters at most.
    #[must_use]
    pub fn user_agent(&self) -> String {
        const MAX: usize = 300;
        let text = self.user_agent.as_ref().and_then(|value| value.to_str().ok());
        text.unwrap_or_default().chars().take(MAX).collect()
    }
}

/// Names a request, in the log and in its answer. The text is plain: letters,
/// digits, `-`, `_` and `.`. It is made text only where somebody reads it.
#[derive(Clone, Debug)]
pub enum RequestId {
    /// The client's own.
    Sent(HeaderValue),
    /// Made here.
    Made(Uuid),
    /// That of what a command does.
    Command,
}

impl RequestId {
    /// The one that the client sent, unless it is no plain word.
    #[must_use]
    pub fn accept(sent: &HeaderValue) -> Option<Self> {
        const MAX: usize = 64;
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
        let fits = (1..=MAX).contains(&sent.len()) && sent.as_bytes().iter().all(is_plain);
        fits.then(|| Self::Sent(sent.clone()))
    }

    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self::Made(Uuid::now_v7())
    }

    /// As a header's value. Each differs from the one before: it is marked so that
    /// HTTP/2 does not keep it to be named again (RFC 7541, 7.1.3), which would
    /// drive out what is.
    #[must_use]
    pub fn header(&self) -> Option<HeaderValue> {
        let mut value = match self {
            Self::Sent(value) => value.clone(),
            made => HeaderValue::from_str(&made.to_string()).ok()?,
        };
        value.set_sensitive(true);
        Some(value)
    }
}

impl Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sent(value) => f.write_str(value.to_str().unwrap_or_default()),
            Self::Made(id) => id.fmt(f),
            Self::Command => f.write_str("command"),
        }
    }
}
