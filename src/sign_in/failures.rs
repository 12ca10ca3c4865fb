//! When failed sign-ins are answered: a fixed time after they began, whatever the
//! comparison took.
//!
//! The work differs by cause: an imported hash may take ten times what ours take. Waiting for
//! a fixed time hides that. Of many at once each has its turn ([`super::turns`]). A failure
//! that took longer is answered at the next multiple of the time.
//! Nothing is held meanwhile but the call itself; so calls are counted, for each tenant, for
//! each network and altogether, and the failures of one can't be all the calls that the
//! server handles.

use std::{
    net::IpAddr,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::time::sleep_until;

use super::turns::{Turn, Turns};
use crate::{
    concurrency::bounded::{BoundedPermit, BoundedPermits, TooMany},
    error::Result,
    ids::TenantId,
    limits::Owner,
    passwords::{Presented, WorstCase},
    proto::v1::ErrorReason,
};

/// The parts of all requests in progress that may be sign-ins, those of one network, and
/// those of one tenant.
const SHARE: usize = 2;
const SHARE_OF_NETWORK: usize = 4;
const SHARE_OF_TENANT: usize = 8;

/// What all sign-ins have in common.
pub struct Failures {
    turns: Turns,
    of_tenants: Arc<BoundedPermits<TenantId>>,
    of_networks: Arc<BoundedPermits<Option<IpAddr>>>,
    late: Counter,
    refused: Family<By, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct By {
    by: &'static str,
}

/// A sign-in in progress, or what else takes a password.
pub struct SignIn {
    failures: Arc<Failures>,
    began: Instant,
    counted: OnceLock<Counted>,
}

/// Counts a sign-in for its owner, until dropped.
struct Counted {
    turn: Turn,
    _of_network: BoundedPermit<Option<IpAddr>>,
    _of_tenant: BoundedPermit<TenantId>,
}

impl Failures {
    /// Failures that are answered after this time, where so many requests may be in progress.
    #[must_use]
    pub fn new(
        time: Duration,
        worst_case: WorstCase,
        max_requests: usize,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let part = |share: usize| (max_requests / share).max(1);
        let failures = Self {
            turns: Turns::new(time, worst_case),
            of_tenants: BoundedPermits::new(part(SHARE), part(SHARE_OF_TENANT)),
            of_networks: BoundedPermits::new(part(SHARE), part(SHARE_OF_NETWORK)),
            late: Counter::default(),
            refused: Family::default(),
        };
        let help = "Failed sign-ins whose work was not done by the time that they were due";
        registry.register("tenantry_sign_in_failures_late", help, failures.late.clone());
        let help = "Sign-ins that were refused for the number of those in progress";
        registry.register("tenantry_sign_ins_refused", help, failures.refused.clone());
        for by in ["all", "tenant", "network"] {
            drop(failures.refused.get_or_create(&By { by }));
        }
        Arc::new(failures)
    }

    /// A sign-in that began at this time.
    #[must_use]
    pub fn begin(self: &Arc<Self>, began: Instant) -> Arc<SignIn> {
        Arc::new(SignIn { failures: self.clone(), began, counted: OnceLock::new() })
    }
}

impl SignIn {
    /// Counts it for its owner, until it is answered: so many comparisons of this password.
    ///
    /// # Errors
    /// `OVERLOADED` when as many are in progress as may be.
    pub fn count(&self, owner: Owner, password: &Presented, accounts: u32) -> Result<()> {
        let refused = |why, of_owner| {
            let by = by(why, of_owner);
            self.failures.refused.get_or_create(&By { by }).inc();
            why
        };
        let of_network = self.failures.of_networks.open(owner.network);
        let of_network = of_network.map_err(|why| refused(why, "network"))?;
        let of_tenant = self.failures.of_tenants.open(owner.tenant);
        let of_tenant = of_tenant.map_err(|why| refused(why, "tenant"))?;
        let comparisons = accounts * password.max_forms();
        let turn = self.failures.turns.take(owner, self.began, comparisons);
        self.counted.set(Counted { turn, _of_network: of_network, _of_tenant: of_tenant }).ok();
        Ok(())
    }

    /// Its result, a failure when its time has come. Whoever calls this holds no place, lock
    /// or connection.
    pub async fn answer<T>(&self, result: Result<T>) -> Result<T> {
        let failed =
            |error: &crate::error::Error| error.reason() == ErrorReason::InvalidCredentials;
        let (turns, turn) = (&self.failures.turns, self.counted.get().map(|counted| &counted.turn));
        if result.as_ref().is_err_and(failed) {
            let took = self.began.elapsed();
            let due = turn.map_or(Duration::ZERO, |turn| turn.due);
            if took > due.max(turns.due(Duration::ZERO)) {
                self.failures.late.inc();
            }
            sleep_until((self.began + turns.due(took.max(due))).into()).await;
        } else if let Some(turn) = turn {
            turns.give_back(turn);
        }
        result
    }
}

fn by(why: TooMany, of_owner: &'static str) -> &'static str {
    match why {
        TooMany::Total => "all",
        TooMany::OfOwner => of_owner,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N12
    #[test]
    fn the_sign_ins_of_one_tenant_or_network_are_a_part_of_all() {
        let mut registry = Registry::default();
        let (time, password) = (Duration::from_secs(1), Presented::new("password"));
        let worst_case = WorstCase { time, at_once: 1 };
        let failures = Failures::new(time, worst_case, 16, &mut registry);
        let begin = |tenant, network: u8| {
            let sign_in = failures.begin(Instant::now());
            let owner = Owner::new(tenant, Some([192, 0, 2, network].into()));
            sign_in.count(owner, &password, 1).map(|()| sign_in)
        };
        let is_refused = |tenant, network| {
            begin(tenant, network).err().map(|e| e.reason()) == Some(ErrorReason::Overloaded)
        };
        let (one, other) = (TenantId::new(), TenantId::new());
        let held = [begin(one, 1).expect("few"), begin(one, 2).expect("few")];
        assert!(is_refused(one, 3), "the tenant has an eighth");
        assert!(begin(other, 1).is_ok());
        drop(held);
        assert!(begin(one, 3).is_ok());

        let held = [(); 4].map(|()| begin(TenantId::new(), 1).expect("few"));
        assert!(is_refused(other, 1), "the network has a quarter");
        assert!(begin(other, 2).is_ok());
        drop(held);
        assert!(begin(other, 1).is_ok());
    }
}
