//! Delays the responses to failed sign-ins until the time that [`super::failure_schedule`] decides,
//! whatever the duration of the comparison.
//!
//! The duration differs by the cause of the failure: the comparison with an imported hash may take
//! ten times as long as with a hash of this server. The delay hides the difference. Concurrent
//! sign-ins of a tenant or a network take turns in the order in which they begin
//! ([`super::failure_schedule`]). If the comparison takes longer than planned, the response is
//! delayed until the next multiple of the failure time.
//!
//! A delayed call occupies only its call slot. Sign-ins in progress are limited per tenant, per
//! network and in total, so that one tenant or network cannot occupy all call slots.

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

use super::failure_schedule::{FailureSchedule, Turn};
use crate::{
    concurrency::bounded::{BoundedPermit, BoundedPermits, TooMany},
    error::Result,
    ids::TenantId,
    limits::WorkOwner,
    passwords::{PresentedPassword, WorstCase},
    proto::v1::ErrorReason,
};

/// All sign-ins in progress may take this fraction of the call slots: 1/2.
const TOTAL_DIVISOR: usize = 2;

/// The sign-ins of one network may take this fraction of the call slots: 1/4.
const NETWORK_DIVISOR: usize = 4;

/// The sign-ins of one tenant may take this fraction of the call slots: 1/8.
const TENANT_DIVISOR: usize = 8;

/// Shared state of all sign-in attempts: limits, turns and metrics.
pub struct FailureTiming {
    schedule: FailureSchedule,
    tenant_permits: Arc<BoundedPermits<TenantId>>,
    network_permits: Arc<BoundedPermits<Option<IpAddr>>>,
    late_failures: Counter,
    refused_sign_ins: Family<LimitLabel, Counter>,
}

/// The limit that refused a sign-in: `all`, `tenant` or `network`.
#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct LimitLabel {
    by: &'static str,
}

/// A sign-in in progress, or another call that verifies a password.
pub struct SignInAttempt {
    timing: Arc<FailureTiming>,
    began: Instant,
    /// Empty until [`SignInAttempt::reserve`] succeeds.
    admission: OnceLock<Admission>,
}

/// The turn and the permits of a sign-in. Dropping it frees the permits.
struct Admission {
    turn: Turn,
    _network_permit: BoundedPermit<Option<IpAddr>>,
    _tenant_permit: BoundedPermit<TenantId>,
}

impl FailureTiming {
    /// Creates the shared state. `time` is the failure time. `max_requests` is the number of call
    /// slots of the server.
    #[must_use]
    pub fn new(
        time: Duration,
        worst_case: WorstCase,
        max_requests: usize,
        registry: &mut Registry,
    ) -> Arc<Self> {
        let permits = |divisor: usize| (max_requests / divisor).max(1);
        let timing = Self {
            schedule: FailureSchedule::new(time, worst_case),
            tenant_permits: BoundedPermits::new(permits(TOTAL_DIVISOR), permits(TENANT_DIVISOR)),
            network_permits: BoundedPermits::new(permits(TOTAL_DIVISOR), permits(NETWORK_DIVISOR)),
            late_failures: Counter::default(),
            refused_sign_ins: Family::default(),
        };
        let help = "Failed sign-ins whose comparison took longer than the planned response time";
        registry.register("tenantry_sign_in_failures_late", help, timing.late_failures.clone());
        let help = "Sign-ins refused because too many are in progress";
        registry.register("tenantry_sign_ins_refused", help, timing.refused_sign_ins.clone());
        for by in ["all", "tenant", "network"] {
            drop(timing.refused_sign_ins.get_or_create(&LimitLabel { by }));
        }
        Arc::new(timing)
    }

    /// Starts a sign-in whose call began at `began`.
    #[must_use]
    pub fn begin(self: &Arc<Self>, began: Instant) -> Arc<SignInAttempt> {
        Arc::new(SignInAttempt { timing: self.clone(), began, admission: OnceLock::new() })
    }
}

impl SignInAttempt {
    /// Counts the sign-in against the limits of its owner until this value is dropped, and takes a
    /// turn. The password will be compared with the hashes of `accounts` accounts.
    ///
    /// # Errors
    /// `OVERLOADED` when too many sign-ins are in progress, of the tenant, of the network or in
    /// total.
    pub fn reserve(
        &self,
        owner: WorkOwner,
        password: &PresentedPassword,
        accounts: u32,
    ) -> Result<()> {
        let count_refusal = |limit, owner_label| {
            let by = limit_label(limit, owner_label);
            self.timing.refused_sign_ins.get_or_create(&LimitLabel { by }).inc();
            limit
        };
        let network_permit = self.timing.network_permits.acquire(owner.network);
        let network_permit = network_permit.map_err(|limit| count_refusal(limit, "network"))?;
        let tenant_permit = self.timing.tenant_permits.acquire(owner.tenant);
        let tenant_permit = tenant_permit.map_err(|limit| count_refusal(limit, "tenant"))?;
        let comparisons = accounts * password.max_forms();
        let turn = self.timing.schedule.take(owner, self.began, comparisons);
        let admission =
            Admission { turn, _network_permit: network_permit, _tenant_permit: tenant_permit };
        self.admission.set(admission).ok();
        Ok(())
    }

    /// Returns `result`. If the credentials were wrong, first waits until the planned response
    /// time. During the wait, the calling code must hold no hashing slot, lock or connection.
    pub async fn delay_failure<T>(&self, result: Result<T>) -> Result<T> {
        let is_wrong_credential =
            |error: &crate::error::Error| error.reason() == ErrorReason::InvalidCredentials;
        let schedule = &self.timing.schedule;
        let turn = self.admission.get().map(|admission| &admission.turn);
        if result.as_ref().is_err_and(is_wrong_credential) {
            let elapsed = self.began.elapsed();
            let due_after = turn.map_or(Duration::ZERO, |turn| turn.due_after);
            let failure_time = schedule.round_up(Duration::ZERO);
            if elapsed > due_after.max(failure_time) {
                self.timing.late_failures.inc();
            }
            sleep_until((self.began + schedule.round_up(elapsed.max(due_after))).into()).await;
        } else if let Some(turn) = turn {
            schedule.give_back(turn);
        }
        result
    }
}

fn limit_label(limit: TooMany, owner_label: &'static str) -> &'static str {
    match limit {
        TooMany::Total => "all",
        TooMany::PerOwner => owner_label,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// N12: one tenant or one network can't take all call slots.
    #[test]
    fn sign_ins_are_limited_per_tenant_and_per_network() {
        let mut registry = Registry::default();
        let (time, password) = (Duration::from_secs(1), PresentedPassword::new("password"));
        let worst_case = WorstCase { time, at_once: 1 };
        let timing = FailureTiming::new(time, worst_case, 16, &mut registry);
        let begin = |tenant, network: u8| {
            let sign_in = timing.begin(Instant::now());
            let owner = WorkOwner::new(tenant, Some([192, 0, 2, network].into()));
            sign_in.reserve(owner, &password, 1).map(|()| sign_in)
        };
        let is_overloaded = |tenant, network| {
            begin(tenant, network).err().map(|e| e.reason()) == Some(ErrorReason::Overloaded)
        };
        let admitted = "a sign-in below the limits is admitted";
        let (tenant, other_tenant) = (TenantId::new(), TenantId::new());
        let tenant_sign_ins =
            [begin(tenant, 1).expect(admitted), begin(tenant, 2).expect(admitted)];
        assert!(is_overloaded(tenant, 3), "the limit of a tenant is 16 / 8");
        assert!(begin(other_tenant, 1).is_ok());
        drop(tenant_sign_ins);
        assert!(begin(tenant, 3).is_ok());

        let network_sign_ins = [(); 4].map(|()| begin(TenantId::new(), 1).expect(admitted));
        assert!(is_overloaded(other_tenant, 1), "the limit of a network is 16 / 4");
        assert!(begin(other_tenant, 2).is_ok());
        drop(network_sign_ins);
        assert!(begin(other_tenant, 1).is_ok());
    }
}
