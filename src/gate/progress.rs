//! Limits the number of calls in progress: in total, per tenant, per subject and per network.
//!
//! A call counts from the moment its message is complete. Calls whose message is late are
//! counted separately, by network, so that a client that sends only headers takes no permit
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
    ids::{TenantId, UserId},
    limits,
    proto::v1::ErrorReason,
};

/// One tenant, or one network without a token, gets at most 1/`SHARE_OF_OWNER` of all calls in
/// progress.
const SHARE_OF_OWNER: usize = 2;

/// One subject gets at most 1/`SHARE_OF_SUBJECT` of all calls in progress.
const SHARE_OF_SUBJECT: usize = 8;

/// One network gets at most 1/`SHARE_OF_NETWORK` of all late messages.
const SHARE_OF_NETWORK: usize = 8;

/// Time after the headers when a missing message counts as late. When many calls begin at once,
/// their headers arrive before their messages.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// Maximum time that a late message may take to arrive.
pub(super) const MESSAGE_TIMEOUT: Duration = Duration::from_secs(10);

/// Counts calls in progress.
pub(super) struct Progress {
    all: Semaphore,
    waiting: Arc<BoundedPermits<Share>>,
    of_subjects: Arc<BoundedPermits<UserId>>,
    late: Arc<BoundedPermits<Option<IpAddr>>>,
    refused: Family<Refused, Counter>,
}

/// The owner of a call, whose share the call takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallOwner {
    /// The subject of the caller's token, and its tenant.
    Subject(TenantId, UserId),
    /// The client's network, for a call without a token; `None` when the client has no IP
    /// address.
    Network(Option<IpAddr>),
}

/// The owner whose share of all calls a waiting call takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Share {
    Tenant(TenantId),
    Network(Option<IpAddr>),
}

/// A waiting call, counted until dropped.
pub(super) struct WaitingCall {
    _of_owner: BoundedPermit<Share>,
    _of_subject: Option<BoundedPermit<UserId>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Refused {
    by: &'static str,
}

impl CallOwner {
    /// The owner of an admitted call.
    pub(super) fn of(caller: Option<&Caller>, ip: Option<IpAddr>) -> Self {
        match caller {
            Some(caller) => Self::Subject(caller.home(), caller.user()),
            None => Self::Network(ip.map(limits::network)),
        }
    }
}

impl Progress {
    /// Allows `max` calls in progress.
    pub(super) fn new(max: usize, registry: &mut Registry) -> Self {
        let part = |share: usize| (max / share).max(1);
        let progress = Self {
            all: Semaphore::new(max.min(Semaphore::MAX_PERMITS)),
            waiting: BoundedPermits::new(max, part(SHARE_OF_OWNER)),
            of_subjects: BoundedPermits::new(max, part(SHARE_OF_SUBJECT)),
            late: BoundedPermits::new(max, part(SHARE_OF_NETWORK)),
            refused: Family::default(),
        };
        let help = "Calls refused because too many were in progress";
        registry.register("tenantry_requests_refused", help, progress.refused.clone());
        for by in ["all", "owner", "subject", "late"] {
            drop(progress.refused.get_or_create(&Refused { by }));
        }
        progress
    }

    /// Counts a call whose message is complete.
    ///
    /// # Errors
    /// `OVERLOADED` when the maximum number of calls is in progress.
    pub(super) fn begin(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.all.try_acquire().map_err(|_| self.refuse("all"))
    }

    /// Counts a call that has to wait. A call that is answered from memory never waits.
    ///
    /// # Errors
    /// `OVERLOADED` when the tenant, the network or the subject has used its share.
    pub(super) fn wait(&self, owner: CallOwner) -> Result<WaitingCall, Status> {
        let (share, subject) = match owner {
            CallOwner::Subject(tenant, subject) => (Share::Tenant(tenant), Some(subject)),
            CallOwner::Network(network) => (Share::Network(network), None),
        };
        let of_subject = subject.map(|subject| self.of_subjects.open(subject)).transpose();
        let of_subject = of_subject.map_err(|_| self.refuse("subject"))?;
        let of_owner = self.waiting.open(share).map_err(|_| self.refuse("owner"))?;
        Ok(WaitingCall { _of_owner: of_owner, _of_subject: of_subject })
    }

    /// Counts a call whose message is late.
    ///
    /// # Errors
    /// `OVERLOADED` when the network has used its share, or when too many messages are late.
    pub(super) fn late(&self, ip: Option<IpAddr>) -> Result<BoundedPermit<Option<IpAddr>>, Status> {
        self.late.open(ip.map(limits::network)).map_err(|_| self.refuse("late"))
    }

    fn refuse(&self, by: &'static str) -> Status {
        self.refused.get_or_create(&Refused { by }).inc();
        let text = "the server handles as many requests as it may";
        error::status(ErrorReason::Overloaded, text)
    }
}
