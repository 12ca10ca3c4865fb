//! The waiting jobs of one owner (one tenant from one network).

use std::collections::VecDeque;

/// The number of a job. A job that is added later has a higher number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::passwords) struct Ticket(pub(super) u64);

pub(super) struct WaitingJob<J> {
    pub ticket: Ticket,
    pub cost: u64,
    pub job: J,
}

/// The waiting jobs of an owner: cheap jobs and expensive jobs, each in the order of their tickets.
pub(super) struct Jobs<J> {
    cheap: VecDeque<WaitingJob<J>>,
    expensive: VecDeque<WaitingJob<J>>,
}

impl<J> Default for Jobs<J> {
    fn default() -> Self {
        Self { cheap: VecDeque::new(), expensive: VecDeque::new() }
    }
}

impl<J> Jobs<J> {
    pub(super) fn len(&self) -> usize {
        self.cheap.len() + self.expensive.len()
    }

    pub(super) fn push(&mut self, expensive: bool, waiting: WaitingJob<J>) {
        self.list(expensive).push_back(waiting);
    }

    pub(super) fn pop(&mut self, expensive: bool) -> Option<WaitingJob<J>> {
        self.list(expensive).pop_front()
    }

    /// Removes a waiting job.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<J> {
        [false, true].into_iter().find_map(|expensive| {
            let jobs = self.list(expensive);
            // A job is pushed with a higher ticket than all jobs before it, so each list is sorted.
            let index = jobs.binary_search_by_key(&ticket, |waiting| waiting.ticket).ok()?;
            jobs.remove(index).map(|waiting| waiting.job)
        })
    }

    /// The next job of the owner, as a pair: whether the job is expensive, and its ticket. The job
    /// that has waited longest is next, with two exceptions. If the last job of the owner's tenant
    /// was expensive, a waiting cheap job is next. If `may_run_expensive` is false, no expensive
    /// job is next.
    pub(super) fn next(
        &self,
        may_run_expensive: bool,
        was_last_job_expensive: bool,
    ) -> Option<(bool, Ticket)> {
        let first_ticket =
            |jobs: &VecDeque<WaitingJob<J>>| jobs.front().map(|waiting| waiting.ticket);
        let cheap = first_ticket(&self.cheap);
        let expensive = first_ticket(&self.expensive).filter(|_| may_run_expensive);
        match (cheap, expensive) {
            (Some(cheap), Some(expensive)) if was_last_job_expensive || cheap < expensive => {
                Some((false, cheap))
            }
            (_, Some(expensive)) => Some((true, expensive)),
            (cheap, None) => cheap.map(|ticket| (false, ticket)),
        }
    }

    #[cfg(test)]
    pub(super) fn has_cheap(&self) -> bool {
        !self.cheap.is_empty()
    }

    fn list(&mut self, expensive: bool) -> &mut VecDeque<WaitingJob<J>> {
        if expensive { &mut self.expensive } else { &mut self.cheap }
    }
}
