//! The hash chain of the audit trail. The hash of an event covers the event and the hash of the
//! previous event. So a change, removal or insertion of an event changes all later hashes.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde_json::json;

use super::store::{CheckpointRow, EventRow};

/// The name and the version of the format, as part of the hashed content.
const FORMAT: &str = "tenantry-audit-2";

/// Encodes a hash as text.
#[must_use]
pub fn encode_hash(hash: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(hash)
}

/// Hashes an event at a position: SHA-256 of a JSON array without white space. The keys of each
/// JSON object are sorted. For the first event, `previous_hash` is empty.
#[must_use]
pub fn hash(event: &EventRow, position: i64, previous_hash: &[u8]) -> Vec<u8> {
    let content = json!([
        FORMAT,
        encode_hash(previous_hash),
        position,
        event.tenant_id,
        event.event_id,
        event.kind,
        event.actor_tenant_id,
        event.actor_id,
        event.target_id,
        event.session_id,
        event.request_id,
        event.ip.as_deref().map(encode_hash),
        event.detail,
        created_at_micros(event),
    ]);
    digest(&SHA256, content.to_string().as_bytes()).as_ref().to_vec()
}

/// The verified part of a chain, up to `position`.
pub struct Walk {
    pub position: i64,
    /// The hash at `position`; empty at position 0.
    pub hash: Vec<u8>,
}

impl Walk {
    /// A walk that starts at a checkpoint, or at the start of the chain.
    #[must_use]
    pub fn after(checkpoint: Option<&CheckpointRow>) -> Self {
        match checkpoint {
            Some(row) => Self { position: row.position, hash: row.hash.clone() },
            None => Self { position: 0, hash: Vec::new() },
        }
    }

    /// Verifies the next event of the chain.
    ///
    /// # Errors
    /// The description of the fault: the event does not have the next position, or was changed.
    pub fn verify_next(&mut self, event: &EventRow) -> Result<(), String> {
        let next = self.position + 1;
        if event.position != next {
            return Err(missing_event(next));
        }
        let hash = hash(event, next, &self.hash);
        if hash != event.hash {
            let id = event.event_id;
            return Err(format!(
                "the event at position {next} ({id}) was changed after it was added to the chain"
            ));
        }
        (self.position, self.hash) = (next, hash);
        Ok(())
    }
}

/// Describes the fault that the event at a position is missing.
#[must_use]
pub fn missing_event(position: i64) -> String {
    format!("the event at position {position} is missing, or its place in the chain is missing")
}

/// The time of an event in microseconds since 1970. Postgres stores whole microseconds.
fn created_at_micros(event: &EventRow) -> i64 {
    let created_at = event.created_at;
    created_at.unix_timestamp() * 1_000_000 + i64::from(created_at.microsecond())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    fn event() -> EventRow {
        EventRow {
            tenant_id: Uuid::from_u128(1),
            event_id: Uuid::from_u128(2),
            kind: "role_assigned".into(),
            actor_tenant_id: Some(Uuid::from_u128(1)),
            actor_id: Some(Uuid::from_u128(3)),
            target_id: None,
            session_id: None,
            request_id: "r-1".into(),
            ip: Some(b"sealed".to_vec()),
            detail: json!({ "role_id": "x", "count": 2 }),
            created_at: datetime!(2026-01-02 03:04:05.000_006 UTC),
            position: 0,
            hash: Vec::new(),
        }
    }

    /// The expected hashes were computed with Python (json, hashlib, base64), in the format that
    /// docs/audit.md describes.
    #[test]
    fn a_hash_has_the_documented_format() {
        let first = hash(&event(), 1, &[]);
        assert_eq!(encode_hash(&first), "nDXXNdEiYkm0-qVtW8ZoqKY2W2PE0W3JzlVeO97Y5io");
        assert_eq!(
            encode_hash(&hash(&event(), 2, &first)),
            "mKTUImZE2aVpOBjWLkk82ZfhFh62C1TDsezCqLMcIcg"
        );
    }

    #[test]
    fn a_change_of_any_field_changes_the_hash() {
        let original = hash(&event(), 1, &[]);
        let alterations: [fn(&mut EventRow); 11] = [
            |e| e.tenant_id = Uuid::nil(),
            |e| e.event_id = Uuid::nil(),
            |e| e.kind.push('x'),
            |e| e.actor_tenant_id = None,
            |e| e.actor_id = None,
            |e| e.target_id = Some(Uuid::nil()),
            |e| e.session_id = Some(Uuid::nil()),
            |e| e.request_id.clear(),
            |e| e.ip = None,
            |e| e.detail = json!({}),
            |e| e.created_at += time::Duration::microseconds(1),
        ];
        for (index, alter) in alterations.into_iter().enumerate() {
            let mut event = event();
            alter(&mut event);
            assert_ne!(hash(&event, 1, &[]), original, "alteration {index}");
        }
        assert_ne!(hash(&event(), 2, &[]), original, "the position");
        assert_ne!(hash(&event(), 1, &original), original, "the previous hash");
    }
}
