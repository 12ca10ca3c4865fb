//! Limits the number of calls in progress: in total, per tenant, per subject and per network.
//!
//! A call is counted from the time when its message is complete. Calls whose message is late are
//! counted separately for each network, so that a client that sends only headers takes no permit
//! from other calls.

use std::{net::IpAddr, sync::Arc, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::Status;

use super::Caller;
use crate::{
    concurrency::bounded::{BoundedPermit, BoundedPermits},
    error,
    ids::{SubjectId, TenantId},
    limits,
    proto::v1::ErrorReason,
};

/// Divisor for the share of one owner: a tenant, or a network for calls without a token. The
/// waiting calls of one owner are at most 1/`OWNER_SHARE_DIVISOR` of the maximum number of calls in
/// progress.
const OWNER_SHARE_DIVISOR: usize = 2;

/// Divisor for the share of one subject. The waiting calls of one subject are at most
/// 1/`SUBJECT_SHARE_DIVISOR` of the maximum number of calls in progress.
const SUBJECT_SHARE_DIVISOR: usize = 8;

/// Divisor for the share of one network. The late messages of one network are at most
/// 1/`NETWORK_SHARE_DIVISOR` of the maximum number of calls in progress.
const NETWORK_SHARE_DIVISOR: usize = 8;

/// Time from the arrival of the headers until a missing message is late. When many calls begin at
/// the same time, all headers may arrive before the messages, and the messages are still not late.
pub(super) const LATE_AFTER: Duration = Duration::from_secs(1);

/// Maximum time that a late message may take to arrive.
pub(super) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Counts calls in progress.
pub(super) struct Progress {
    calls: Semaphore,
    waiting_calls: Arc<BoundedPermits<ShareOwner>>,
    subject_calls: Arc<BoundedPermits<SubjectId>>,
    late_messages: Arc<BoundedPermits<Option<IpAddr>>>,
    refused_calls: Family<RefusalLabels, Counter>,
}

/// The owner of a call. A waiting call takes a permit of the owner's share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallOwner {
    /// The subject of the caller's token, and its tenant.
    Subject(TenantId, SubjectId),
    /// The client's network, for a call without a token or before the token is verified. Contains
    /// `None` when the client has no IP address.
    Network(Option<IpAddr>),
}

/// The owner of a share of all waiting calls.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum ShareOwner {
    Tenant(TenantId),
    Network(Option<IpAddr>),
}

/// The permits of a waiting call. A drop of this value releases the permits.
pub(super) struct WaitPermits {
    _owner_permit: BoundedPermit<ShareOwner>,
    _subject_permit: Option<BoundedPermit<SubjectId>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct RefusalLabels {
    by: &'static str,
}

impl CallOwner {
    /// The owner of a call: the subject of `caller`; without a caller, the network of `ip`.
    pub(super) fn of(caller: Option<&Caller>, ip: Option<IpAddr>) -> Self {
        match caller {
            Some(caller) => Self::Subject(caller.own_tenant(), caller.user()),
            None => Self::Network(ip.map(limits::network)),
        }
    }

    /// The owner of the share that the call uses.
    pub(super) fn share_owner(self) -> ShareOwner {
        match self {
            Self::Subject(tenant, _) => ShareOwner::Tenant(tenant),
            Self::Network(network) => ShareOwner::Network(network),
        }
    }
}

impl Progress {
    /// Creates the counters for at most `max` calls in progress.
    pub(super) fn new(max: usize, registry: &mut Registry) -> Self {
        let max_share = |divisor: usize| (max / divisor).max(1);
        let progress = Self {
            calls: Semaphore::new(max.min(Semaphore::MAX_PERMITS)),
            waiting_calls: BoundedPermits::new(max, max_share(OWNER_SHARE_DIVISOR)),
            subject_calls: BoundedPermits::new(max, max_share(SUBJECT_SHARE_DIVISOR)),
            late_messages: BoundedPermits::new(max, max_share(NETWORK_SHARE_DIVISOR)),
            refused_calls: Family::default(),
        };
        let help = "Calls refused because too many were in progress";
        registry.register("tenantry_requests_refused", help, progress.refused_calls.clone());
        for by in ["all", "owner", "subject", "late"] {
            drop(progress.refused_calls.get_or_create(&RefusalLabels { by }));
        }
        progress
    }

    /// Counts a call whose message is complete.
    ///
    /// # Errors
    /// Returns `OVERLOADED` when the maximum number of calls is in progress.
    pub(super) fn begin(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.calls.try_acquire().map_err(|_| self.refuse("all"))
    }

    /// Counts a call that has to wait, for example for Postgres or Redis. A call that needs only
    /// cached data never waits.
    ///
    /// # Errors
    /// Returns `OVERLOADED` when other calls use the whole share of the tenant, the network or the
    /// subject.
    pub(super) fn begin_wait(&self, owner: CallOwner) -> Result<WaitPermits, Status> {
        let subject = match owner {
            CallOwner::Subject(_, subject) => Some(subject),
            CallOwner::Network(_) => None,
        };
        let subject_permit = subject.map(|subject| self.subject_calls.acquire(subject)).transpose();
        let subject_permit = subject_permit.map_err(|_| self.refuse("subject"))?;
        let owner_permit =
            self.waiting_calls.acquire(owner.share_owner()).map_err(|_| self.refuse("owner"))?;
        Ok(WaitPermits { _owner_permit: owner_permit, _subject_permit: subject_permit })
    }

    /// Counts a call whose message is late.
    ///
    /// # Errors
    /// Returns `OVERLOADED` when too many messages are late, from the network or in total.
    pub(super) fn begin_late_message(
        &self,
        ip: Option<IpAddr>,
    ) -> Result<BoundedPermit<Option<IpAddr>>, Status> {
        self.late_messages.acquire(ip.map(limits::network)).map_err(|_| self.refuse("late"))
    }

    /// Counts a refused call, and returns the error for the client.
    fn refuse(&self, by: &'static str) -> Status {
        self.refused_calls.get_or_create(&RefusalLabels { by }).inc();
        let text = "the maximum number of requests is in progress";
        error::status(ErrorReason::Overloaded, text)
    }
}
