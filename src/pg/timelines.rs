//! The timelines of Postgres that this process has used. A server whose timeline is lower than one
//! that was used lacks the writes that were acknowledged on the higher timeline.
//!
//! Each promotion of a standby begins a timeline, with a higher number. So the number of the
//! primary's timeline grows in a failover. The number becomes lower when an old primary becomes the
//! primary again without the changes of its successor.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

/// The identity of a server: the id of its cluster, and its timeline.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    /// The id of the cluster. A copy of a cluster, such as a standby, has the same id.
    pub system_identifier: i64,
    pub timeline: i32,
}

impl Identity {
    /// Whether the server was promoted later than `other`, a server of the same cluster. False when
    /// the clusters differ.
    pub(super) fn is_newer_than(self, other: Self) -> bool {
        self.system_identifier == other.system_identifier && self.timeline > other.timeline
    }
}

/// The timeline and the epochs of a server.
#[derive(Clone, Debug)]
pub(super) struct History {
    pub identity: Identity,
    /// The random numbers of its epochs, the current one first.
    pub epochs: Vec<i64>,
    /// Whether `tenantry restored` began the current epoch.
    pub is_restored: bool,
}

/// The reason why a server with a lower timeline is refused.
#[derive(Debug, thiserror::Error)]
#[error(
    "the timeline went back from {from} to {to}: acknowledged writes are lost; \
     run `tenantry restored`"
)]
pub(super) struct TimelineWentBack {
    from: i32,
    to: i32,
}

/// The server that this process used last. It has the highest timeline that was used, unless an
/// operator accepted the loss with `tenantry restored`.
#[derive(Default, Debug)]
pub(super) struct UsedTimelines {
    last: Mutex<Option<Used>>,
}

#[derive(Debug)]
struct Used {
    identity: Identity,
    epochs: HashSet<i64>,
}

impl UsedTimelines {
    /// Accepts a server, unless its timeline is lower than that of the last used server. A server
    /// with a lower timeline is accepted if `tenantry restored` has run there since the last server
    /// was used: then its current epoch is an epoch that the last server did not have.
    ///
    /// # Errors
    /// When the timeline is lower and `tenantry restored` has not run since.
    pub(super) fn accept(&self, history: &History) -> Result<(), TimelineWentBack> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(last) = last.as_ref() else { return Ok(()) };
        let is_new_epoch =
            history.epochs.first().is_some_and(|current| !last.epochs.contains(current));
        if !last.identity.is_newer_than(history.identity) || (history.is_restored && is_new_epoch) {
            return Ok(());
        }
        Err(TimelineWentBack { from: last.identity.timeline, to: history.identity.timeline })
    }

    /// Records the server that this process uses from now on.
    pub(super) fn record(&self, history: &History) {
        let used =
            Used { identity: history.identity, epochs: history.epochs.iter().copied().collect() };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(used);
    }

    /// The server that was used last; `None` when no used server has reported its identity.
    pub(super) fn last(&self) -> Option<Identity> {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().map(|last| last.identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(system_identifier: i64, timeline: i32, epochs: &[i64]) -> History {
        let identity = Identity { system_identifier, timeline };
        History { identity, epochs: epochs.to_vec(), is_restored: false }
    }

    /// N50: a failover, a restart, and another cluster are accepted; an old timeline is not.
    #[test]
    fn only_a_lower_timeline_of_the_same_cluster_is_refused() {
        let used = UsedTimelines::default();
        for accepted in
            [history(7, 3, &[3]), history(7, 3, &[3]), history(7, 4, &[4, 3]), history(8, 1, &[9])]
        {
            used.accept(&accepted).expect("accepted");
            used.record(&accepted);
        }
        used.record(&history(7, 4, &[4, 3]));
        let error = used.accept(&history(7, 3, &[3])).expect_err("the timeline went back");
        assert!(error.to_string().contains("from 4 to 3"), "{error}");
        // A new epoch alone is not enough: another replica, which has not used the higher timeline,
        // may have begun it.
        used.accept(&history(7, 3, &[5, 3])).expect_err("the timeline went back");
    }

    /// N50: a run of `tenantry restored` on the old timeline ends the refusal; an earlier run, from
    /// before the failover, does not.
    #[test]
    fn a_lower_timeline_is_accepted_after_a_run_of_tenantry_restored() {
        let used = UsedTimelines::default();
        used.record(&history(7, 4, &[4, 3, 2]));
        let restored = |epochs| History { is_restored: true, ..history(7, 3, epochs) };
        used.accept(&restored(&[3, 2])).expect_err("restored before the failover");
        used.accept(&restored(&[6, 3, 2])).expect("restored after the failover");
        used.record(&restored(&[6, 3, 2]));
        used.accept(&restored(&[6, 3, 2])).expect("the same server is accepted again");
    }
}
