//! The audit trail: what happened, by whom, to whom; written in the
//! transaction of what it records.

use std::{
    fmt::{self, Display},
    net::IpAddr,
};

use http::HeaderValue;
use serde_json::{Map, Value};
use sqlx::types::ipnet::IpNet;
use uuid::Uuid;

use crate::{
    db::{Db, TenantTx},
    error::Result,
    ids::{SessionId, TenantId, UserId},
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

/// Who acts. Nobody, for a call without a token.
#[derive(Clone, Debug)]
pub struct Actor {
    /// The actor's own tenant.
    pub tenant: Option<TenantId>,
    /// The actor.
    pub user: Option<UserId>,
    /// The actor's session.
    pub session: Option<SessionId>,
    /// Where the act comes from.
    pub origin: Origin,
}

impl Actor {
    /// Somebody without a token.
    #[must_use]
    pub fn anonymous(origin: &Origin) -> Self {
        Self { tenant: None, user: None, session: None, origin: origin.clone() }
    }
}

/// What happened. It holds ids, never emails, tokens or secrets.
pub struct Event {
    kind: &'static str,
    target: Option<Uuid>,
    detail: Map<String, Value>,
}

impl Event {
    /// An event of a kind: a past-tense `snake_case` word.
    #[must_use]
    pub fn new(kind: &'static str) -> Self {
        Self { kind, target: None, detail: Map::new() }
    }

    /// What it happened to.
    #[must_use]
    pub fn target(mut self, id: Uuid) -> Self {
        self.target = Some(id);
        self
    }

    /// More about it.
    #[must_use]
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.detail.insert(key.to_owned(), value.into());
        self
    }
}

/// Records an event of `tenant`, the transaction's own.
///
/// # Errors
/// When Postgres is away.
pub async fn record(
    tx: &mut TenantTx,
    tenant: TenantId,
    actor: &Actor,
    event: Event,
) -> Result<()> {
    sqlx::query!(
        r#"
        insert into audit_events
            (tenant_id, event_id, kind, actor_tenant_id, actor_id, target_id, session_id,
             request_id, ip, detail)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        "#,
        tenant.0,
        Uuid::now_v7(),
        event.kind,
        actor.tenant.map(|id| id.0),
        actor.user.map(|id| id.0),
        event.target,
        actor.session.map(|id| id.0),
        actor.origin.request_id.to_string(),
        actor.origin.ip.map(IpNet::from),
        Value::Object(event.detail),
    )
    .execute(tx.conn())
    .await?;
    Ok(())
}

/// Records an event that nothing else is written with, like a refusal.
///
/// # Errors
/// When Postgres is away.
pub async fn record_alone(db: &Db, tenant: TenantId, actor: &Actor, event: Event) -> Result<()> {
    let mut tx = db.begin(tenant).await?;
    record(&mut tx, tenant, actor, event).await?;
    tx.commit_record().await
}
