//! How many calls may be in progress at once: altogether, and for one tenant or network.
//!
//! A call is counted from when its message is there. Messages that are late are counted
//! apart, by network: whoever sends the head of a call and never the rest keeps nobody out.

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
    concurrency::bounded::{Bounded, Open},
    error,
    ids::{TenantId, UserId},
    limits,
    proto::v1::ErrorReason,
};

/// The part of all calls in progress that may be one tenant's, or one network's without a
/// token.
const SHARE_OF_OWNER: usize = 2;

/// The part of all calls in progress that may be one subject's.
const SHARE_OF_SUBJECT: usize = 8;

/// The part of all late messages that may come from one network.
const SHARE_OF_NETWORK: usize = 8;

/// When a message that has not arrived is late. The heads of many calls at once come before
/// their messages.
pub(super) const LATE: Duration = Duration::from_secs(1);

/// How long a message may be late.
pub(super) const ARRIVAL: Duration = Duration::from_secs(10);

/// Counts calls in progress.
pub(super) struct Progress {
    all: Semaphore,
    waiting: Arc<Bounded<Share>>,
    of_subjects: Arc<Bounded<UserId>>,
    late: Arc<Bounded<Option<IpAddr>>>,
    refused: Family<Refused, Counter>,
}

/// Whose call it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CallOwner {
    /// The subject of the caller's token, and its tenant.
    Subject(TenantId, UserId),
    /// Without a token, where it comes from; `None` where that is no address.
    Network(Option<IpAddr>),
}

/// Whose share of all calls a call takes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
enum Share {
    Tenant(TenantId),
    Network(Option<IpAddr>),
}

/// A call that waits, until dropped.
pub(super) struct WaitingCall {
    _of_owner: Open<Share>,
    _of_subject: Option<Open<UserId>>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Refused {
    by: &'static str,
}

impl CallOwner {
    /// Of a call that was admitted.
    pub(super) fn of(caller: Option<&Caller>, ip: Option<IpAddr>) -> Self {
        match caller {
            Some(caller) => Self::Subject(caller.home(), caller.user()),
            None => Self::Network(ip.map(limits::network)),
        }
    }
}

impl Progress {
    /// With so many calls at once, at most.
    pub(super) fn new(max: usize, registry: &mut Registry) -> Self {
        let part = |share: usize| (max / share).max(1);
        let progress = Self {
            all: Semaphore::new(max.min(Semaphore::MAX_PERMITS)),
            waiting: Bounded::new(max, part(SHARE_OF_OWNER)),
            of_subjects: Bounded::new(max, part(SHARE_OF_SUBJECT)),
            late: Bounded::new(max, part(SHARE_OF_NETWORK)),
            refused: Family::default(),
        };
        let help = "Calls that were refused for the number of those in progress";
        registry.register("tenantry_requests_refused", help, progress.refused.clone());
        for by in ["all", "owner", "subject", "late"] {
            drop(progress.refused.get_or_create(&Refused { by }));
        }
        progress
    }

    /// Counts a call whose message is there.
    ///
    /// # Errors
    /// `OVERLOADED` when there are as many as there may be.
    pub(super) fn begin(&self) -> Result<SemaphorePermit<'_>, Status> {
        self.all.try_acquire().map_err(|_| self.refuse("all"))
    }

    /// Counts a call that has to wait for something. What memory answers never does.
    ///
    /// # Errors
    /// `OVERLOADED` when the tenant or network has its share, or the subject its part of the
    /// tenant's.
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
    /// `OVERLOADED` when the network has its share.
    pub(super) fn late(&self, ip: Option<IpAddr>) -> Result<Open<Option<IpAddr>>, Status> {
        self.late.open(ip.map(limits::network)).map_err(|_| self.refuse("late"))
    }

    fn refuse(&self, by: &'static str) -> Status {
        self.refused.get_or_create(&Refused { by }).inc();
        let text = "the server handles as many requests as it may";
        error::status(ErrorReason::Overloaded, text)
    }
}
