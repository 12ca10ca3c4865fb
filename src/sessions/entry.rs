//! The entry of a live session in Redis. An entry is valid for 750 ms ([`ENTRY_LIFETIME`]). Each
//! entry has a MAC, so a party with access to Redis can delete entries but can't create or alter
//! them.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::{
    ids::{SessionId, SubjectId, TenantId},
    tokens::{Keyring, Renew},
};

/// The purpose of the keys of the MACs. Each purpose has its own keys.
const PURPOSE: &str = "tenantry session cache";

/// Lifetime of an entry. It starts at the Redis lookup that found no entry, before the read of
/// Postgres.
pub(super) const ENTRY_LIFETIME: Duration = Duration::from_millis(750);

/// Maximum difference of the clocks of two replicas. An entry whose writer's clock differs more is
/// ignored.
const SKEW: Duration = Duration::from_secs(2);

/// Time from the lookup after which no replica uses an entry, whatever the clock of Redis says. After
/// a failover, the new master's clock may be behind the clock by which the entry was written. The
/// clocks of the replicas may differ by [`SKEW`].
pub(super) const MAX_AGE: Duration = ENTRY_LIFETIME.saturating_add(SKEW).saturating_add(SKEW);

/// Maximum size of an entry that is read, in bytes.
pub(super) const MAX_ENTRY: usize = 256;

/// A session that Postgres reported as live.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Entry {
    pub(super) tenant: TenantId,
    pub(super) session: SessionId,
    pub(super) user: SubjectId,
    /// The tenant's epoch at the lookup.
    pub(super) epoch: Uuid,
    /// Time of the lookup by Redis's clock, in milliseconds since 1970.
    pub(super) looked_up_redis_clock: u64,
    /// Time of the lookup by the clock of the replica that wrote the entry, in milliseconds since
    /// 1970.
    pub(super) looked_up_writer_clock: u64,
}

/// The current time by the clocks of Redis and of this replica, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) redis_time_ms: u64,
    pub(super) replica_time_ms: u64,
}

impl Entry {
    /// Time until the entry expires; `None` when it has expired, when the clock of Redis was set
    /// back, or when the clocks of the two replicas differ too much.
    pub(super) fn valid_for(&self, now: Now) -> Option<Duration> {
        let age = Duration::from_millis(now.redis_time_ms.checked_sub(self.looked_up_redis_clock)?);
        let clock_difference =
            Duration::from_millis(now.replica_time_ms.abs_diff(self.looked_up_writer_clock));
        (clock_difference <= ENTRY_LIFETIME + SKEW)
            .then(|| ENTRY_LIFETIME.checked_sub(age))
            .flatten()
    }
}

/// The keys of the MACs. The first key signs; all keys verify.
pub struct EntryKeys(ArcSwap<Vec<hmac::Key>>);

impl EntryKeys {
    /// Derives the keys, which all replicas share and Redis never sees.
    ///
    /// # Errors
    /// When a key can't be derived. This does not happen with a valid keyring.
    pub fn new(keyring: &Keyring) -> anyhow::Result<Self> {
        Ok(Self(ArcSwap::from_pointee(derive_keys(keyring)?)))
    }

    /// The text of an entry for Redis, with its MAC; `None` when there is no MAC key.
    pub(super) fn sign(&self, entry: &Entry) -> Option<String> {
        let keys = self.0.load();
        let tag = hmac::sign(keys.first()?, &mac_input(entry));
        let tag = BASE64_URL_SAFE_NO_PAD.encode(tag);
        let Entry { user, epoch, looked_up_redis_clock, looked_up_writer_clock, .. } = entry;
        Some(format!(
            "{user} {} {looked_up_redis_clock} {looked_up_writer_clock} {tag}",
            epoch.simple()
        ))
    }

    /// Decodes the entry of a session and verifies its MAC. `None` when no replica wrote this text
    /// for the session.
    pub(super) fn verify(&self, tenant: TenantId, session: SessionId, text: &str) -> Option<Entry> {
        let parts: Vec<_> = Some(text).filter(|t| t.len() <= MAX_ENTRY)?.split(' ').collect();
        let [user, epoch, looked_up_redis_clock, looked_up_writer_clock, tag] = parts[..] else {
            return None;
        };
        let entry = Entry {
            tenant,
            session,
            user: SubjectId(Uuid::try_parse(user).ok()?),
            epoch: Uuid::try_parse(epoch).ok()?,
            looked_up_redis_clock: looked_up_redis_clock.parse().ok()?,
            looked_up_writer_clock: looked_up_writer_clock.parse().ok()?,
        };
        let tag = BASE64_URL_SAFE_NO_PAD.decode(tag).ok()?;
        let (keys, mac_input) = (self.0.load(), mac_input(&entry));
        keys.iter().any(|key| hmac::verify(key, &mac_input, &tag).is_ok()).then_some(entry)
    }
}

impl Renew for EntryKeys {
    fn renew(&self, keyring: &Keyring) -> anyhow::Result<()> {
        self.0.store(Arc::new(derive_keys(keyring)?));
        Ok(())
    }
}

fn derive_keys(keyring: &Keyring) -> anyhow::Result<Vec<hmac::Key>> {
    let secrets = keyring.derive(PURPOSE)?;
    secrets.first().context("no secret for the session cache")?;
    Ok(secrets.iter().map(|secret| hmac::Key::new(HMAC_SHA256, secret)).collect())
}

/// The content of an entry, which the MAC covers. Each part has a fixed length.
fn mac_input(entry: &Entry) -> Vec<u8> {
    let Entry { tenant, session, user, epoch, looked_up_redis_clock, looked_up_writer_clock } =
        entry;
    let ids = [tenant.0, session.0, user.0, *epoch].map(Uuid::into_bytes);
    let times = [looked_up_redis_clock, looked_up_writer_clock].map(|time| time.to_be_bytes());
    [ids.as_flattened(), times.as_flattened()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry_keys(byte: u8) -> EntryKeys {
        let key = hmac::Key::new(HMAC_SHA256, &[byte; 32]);
        EntryKeys(ArcSwap::from_pointee(vec![key]))
    }

    fn entry() -> Entry {
        Entry {
            tenant: TenantId::new(),
            session: SessionId::new(),
            user: SubjectId::new(),
            epoch: Uuid::new_v4(),
            looked_up_redis_clock: 10_000,
            looked_up_writer_clock: 20_000,
        }
    }

    /// N23: an entry is accepted only for the session that it was written for, and only unaltered.
    #[test]
    fn an_altered_entry_or_an_entry_of_another_session_is_rejected() {
        let (entry, keys_1) = (entry(), entry_keys(1));
        let (tenant, session) = (entry.tenant, entry.session);
        let text = keys_1.sign(&entry).expect("there is a key");
        assert_eq!(keys_1.verify(tenant, session, &text), Some(entry));
        assert_eq!(keys_1.verify(TenantId::new(), session, &text), None);
        assert_eq!(keys_1.verify(tenant, SessionId::new(), &text), None);
        assert_eq!(entry_keys(2).verify(tenant, session, &text), None);
        for index in 0..text.len() {
            let mut altered = text.clone().into_bytes();
            altered[index] = if altered[index] == b'0' { b'1' } else { b'0' };
            let altered = String::from_utf8(altered).expect("the text is ASCII");
            assert_eq!(keys_1.verify(tenant, session, &altered), None, "{index}");
        }
        for time in ["nan", "inf", "-1", "1e4", "10000.0", "", "99999999999999999999"] {
            let altered = text.replace(" 10000 ", &format!(" {time} "));
            assert_eq!(keys_1.verify(tenant, session, &altered), None, "{time}");
        }
        let longer = format!("{text} x");
        for malformed in ["", " ", "    ", &text[1..], &longer, &"a".repeat(1000)] {
            assert_eq!(keys_1.verify(tenant, session, malformed), None, "{malformed}");
        }
    }

    /// N23: an entry is used for at most 750 ms by Redis's clock, also if that clock is set back.
    #[test]
    fn an_entry_expires_by_both_clocks() {
        let entry = entry();
        let millis_left = |redis_time_ms, replica_time_ms| {
            entry
                .valid_for(Now { redis_time_ms, replica_time_ms })
                .map(|duration| duration.as_millis())
        };
        assert_eq!(millis_left(10_000, 20_000), Some(750));
        assert_eq!(millis_left(10_750, 20_750), Some(0));
        assert_eq!(millis_left(10_751, 20_751), None);
        assert_eq!(millis_left(9_999, 20_000), None, "Redis's clock was set back");
        // The clocks of the replicas may differ by the lifetime plus SKEW: 750 + 2,000 ms.
        assert_eq!(millis_left(10_100, 22_750), Some(650));
        assert_eq!(
            millis_left(10_100, 22_751),
            None,
            "replayed later, with Redis's clock set back"
        );
        assert_eq!(millis_left(10_100, 17_250), Some(650));
        assert_eq!(millis_left(10_100, 17_249), None);
    }
}
