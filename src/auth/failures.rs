//! When failed sign-ins are answered: a fixed time after they began, whatever the
//! comparison took.
//!
//! The work differs by cause: an imported hash may take ten times what ours take. Waiting for
//! a fixed time hides that. A failure that took longer is answered at the next multiple of it.
//! Nothing is held meanwhile but the call itself; so calls are counted, for each tenant and
//! altogether, and one tenant's failures can't be all the calls that the server handles.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::time::sleep_until;

use crate::{
    bounded::{Bounded, Open, TooMany},
    error::Result,
    ids::TenantId,
    proto::v1::ErrorReason,
};

/// The parts of all requests in progress that may be sign-ins, and those of one tenant.
const SHARE: usize = 2;
const SHARE_OF_TENANT: usize = 8;

/// What all sign-ins have in common.
pub struct Failures {
    time: Duration,
    in_progress: Arc<Bounded<TenantId>>,
    late: Counter,
    refused: Family<By, Counter>,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug, EncodeLabelSet)]
struct By {
    by: &'static str,
}

/// A sign-in in progress.
pub(super) struct SignIn {
    failures: Arc<Failures>,
    began: Instant,
    open: OnceLock<Open<TenantId>>,
}

impl Failures {
    /// Failures that are answered after this time, where so many requests may be in progress.
    #[must_use]
    pub fn new(time: Duration, max_requests: usize, registry: &mut Registry) -> Arc<Self> {
        let part = |share: usize| (max_requests / share).max(1);
        let failures = Self {
            time,
            in_progress: Bounded::new(part(SHARE), part(SHARE_OF_TENANT)),
            late: Counter::default(),
            refused: Family::default(),
        };
        let help = "Failed sign-ins that took longer than SIGN_IN_FAILURE_TIME";
        registry.register("tenantry_sign_in_failures_late", help, failures.late.clone());
        let help = "Sign-ins that were refused for the number of those in progress";
        registry.register("tenantry_sign_ins_refused", help, failures.refused.clone());
        for by in [TooMany::Total, TooMany::OfOwner].map(by) {
            drop(failures.refused.get_or_create(&By { by }));
        }
        Arc::new(failures)
    }

    /// A sign-in that began at this time.
    pub(super) fn begin(self: &Arc<Self>, began: Instant) -> Arc<SignIn> {
        Arc::new(SignIn { failures: self.clone(), began, open: OnceLock::new() })
    }
}

impl SignIn {
    /// Counts it for its tenant, until it is answered.
    ///
    /// # Errors
    /// `OVERLOADED` when as many are in progress as may be.
    pub(super) fn count(&self, tenant: TenantId) -> Result<()> {
        let open = self.failures.in_progress.open(tenant).inspect_err(|why| {
            self.failures.refused.get_or_create(&By { by: by(*why) }).inc();
        })?;
        self.open.set(open).ok();
        Ok(())
    }

    /// Its result, a failure when its time has come. Whoever calls this holds no place, lock
    /// or connection.
    pub(super) async fn answer<T>(&self, result: Result<T>) -> Result<T> {
        let failed =
            |error: &crate::error::Error| error.reason() == ErrorReason::InvalidCredentials;
        if result.as_ref().is_err_and(failed) {
            let due = due(self.failures.time, self.began.elapsed());
            if due > self.failures.time {
                self.failures.late.inc();
            }
            sleep_until((self.began + due).into()).await;
        }
        result
    }
}

fn by(why: TooMany) -> &'static str {
    match why {
        TooMany::Total => "all",
        TooMany::OfOwner => "tenant",
    }
}

/// The first multiple of a time that has not passed.
fn due(time: Duration, elapsed: Duration) -> Duration {
    let times = elapsed.as_nanos().div_ceil(time.as_nanos().max(1)).max(1);
    time.saturating_mul(u32::try_from(times).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_due_at_multiples_of_the_time() {
        let time = Duration::from_millis(500);
        for (elapsed, times) in [(0, 1), (1, 1), (500, 1), (501, 2), (1400, 3)] {
            assert_eq!(due(time, Duration::from_millis(elapsed)), time * times, "{elapsed}");
        }
    }

    #[test]
    fn one_tenants_sign_ins_are_a_part_of_all() {
        let mut registry = Registry::default();
        let failures = Failures::new(Duration::from_secs(1), 16, &mut registry);
        let begin = |tenant| {
            let sign_in = failures.begin(Instant::now());
            sign_in.count(tenant).map(|()| sign_in)
        };
        let (one, other) = (TenantId::new(), TenantId::new());
        let held: Vec<_> = (0..2).map(|_| begin(one).expect("few")).collect();
        assert_eq!(begin(one).err().map(|e| e.reason()), Some(ErrorReason::Overloaded));
        assert!(begin(other).is_ok());
        drop(held);
        assert!(begin(one).is_ok());
    }
}
