//! Converts events to the messages that clients get.

use std::fmt::Display;

use super::{chain, store::EventRow};
use crate::{
    clock,
    error::{Error, Result},
    privacy::Cipher,
    proto::{json, v1::AuditEvent},
};

/// Converts an event. The event is marked `unreadable` if its address can't be decrypted.
pub(super) fn event_to_proto(row: EventRow, cipher: &Cipher) -> Result<AuditEvent> {
    fn to_text(value: Option<impl Display>) -> String {
        value.map(|value| value.to_string()).unwrap_or_default()
    }
    let ip = match row.open_ip(cipher) {
        Err(Error::Unreadable) => None,
        result => Some(result?),
    };
    Ok(AuditEvent {
        unreadable: ip.is_none(),
        ip: ip.unwrap_or_default(),
        id: row.event_id.to_string(),
        tenant_id: row.tenant_id.to_string(),
        kind: row.kind,
        actor_id: to_text(row.actor_id),
        actor_tenant_id: to_text(row.actor_tenant_id),
        target_id: to_text(row.target_id),
        session_id: to_text(row.session_id),
        request_id: row.request_id,
        detail: row.detail.as_object().map(json::to_struct),
        create_time: Some(clock::timestamp(row.created_at)),
        position: row.position,
        hash: chain::encode_hash(&row.hash),
    })
}
