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
    bounded::{Bounded, Open},
    error,
    ids::TenantId,
    limits,
    proto::v1::ErrorReason,
};

/// The part of all calls in progress that may be one tenant's, or one network's without a
/// token.
const SHARE_OF_OWNER: usize = 2;

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
    waiting: Arc<Bounded<CallOwner>>,
    late: Arc<Bounded<Option<IpAddr>>>,
    refused: Family<Refused, Counter>,
}

/// Whose call it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum CallOwner {
    /// By the tenant of the caller's token.
    Tenant(TenantId),
    /// Without a token, by where it comes from; `None` where that is no address.
    Network(Option<IpAddr>),
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct Refused {
    by: &'static str,
}

impl CallOwner {
    /// Of a call that was admitted.
    pub(super) fn of(caller: Option<&Caller>, ip: Option<IpAddr>) -> Self {
        caller.map_or(Self::Network(ip.map(limits::network)), |caller| Self::Tenant(caller.home()))
    }
}

impl Progress {
    /// With so many calls at once, at most.
    pub(super) fn new(max: usize, registry: &mut Registry) -> Self {
        let part = |share: usize| (max / share).max(1);
        let progress = Self {
            all: Semaphore::new(max.min(Semaphore::MAX_PERMITS)),
            waiting: Bounded::new(max, part(SHARE_OF_OWNER)),
            late: Bounded::new(max, part(SHARE_OF_NETWORK)),
            refused: Family::default(),
        };
        let help = "Calls that were refused for the number of those in progress";
        registry.register("tenantry_requests_refused", help, progress.refused.clone());
        for by in ["all", "owner", "late"] {
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
    /// `OVERLOADED` when the owner has its share.
    pub(super) fn wait(&self, owner: CallOwner) -> Result<Open<CallOwner>, Status> {
        self.waiting.open(owner).map_err(|_| self.refuse("owner"))
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
