//! The thread pool that hashes passwords. The pool has few threads of low priority, so sign-ins
//! never slow down decisions. The queue is short, and fair between tenants and networks, so
//! the sign-ins of one tenant or network do not slow down the sign-ins of others.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use super::{
    algorithms::{Argon2id, Comparison},
    import,
    metrics::Metrics,
    pepper::Peppers,
    presented::PresentedPassword,
    queue::{self, Bounds, JobInfo, NextJob, QueueFull, Ticket},
    stored_hash::{self, StoredHash, UnreadableHash},
};
use crate::{
    concurrency::priority,
    config::Passwords,
    error::{Error, Result},
    ids::TenantId,
    limits::WorkOwner,
    proto::v1::ErrorReason,
};

/// Time that the unused working memory is kept. A thread that waits this long for a job gives the
/// memory back to the system.
const KEEP_MEMORY: Duration = Duration::from_secs(5);

/// Hashes and verifies passwords. Cheap to clone. The threads stop when the last clone and the
/// last slot are dropped.
#[derive(Clone)]
pub struct Hasher(Arc<StopThreadsOnDrop>);

struct StopThreadsOnDrop(Arc<Shared>);

/// The state that the threads share with the hashers and the slots.
struct Shared {
    state: Mutex<State>,
    /// Signalled when a thread may be able to run a waiting job.
    job_available: Condvar,
    bounds: Bounds,
    /// The cost of a hash with the configured parameters, in microseconds of CPU time.
    current_cost: u64,
    scheme: Argon2id,
    peppers: Arc<Peppers>,
    metrics: Metrics,
}

struct State {
    queue: queue::Queue<Job>,
    /// Whether the threads must stop.
    is_closed: bool,
}

struct Job {
    run: Box<dyn FnOnce(&Argon2id) + Send>,
    queued_at: Instant,
}

/// Numbers of slots and jobs in the queue.
pub struct QueueUsage {
    /// Number of slots in use. The holder of a slot may have a waiting or running job, or no job.
    pub taken: u64,
    /// Number of slots.
    pub slots: u64,
    /// Number of jobs that wait for a thread.
    pub waiting: u64,
    /// Working memory of the threads, in bytes.
    pub memory_bytes: u64,
}

/// The worst case of a comparison with one form of a password, with the most expensive hash that
/// this version computes or imports.
#[derive(Clone, Copy, Debug)]
pub struct WorstCase {
    /// Estimated CPU time of one such comparison.
    pub time: Duration,
    /// Maximum number of such comparisons that run concurrently.
    pub at_once: usize,
}

/// A slot in the hashing queue. The holder of a slot may run jobs one after another.
pub struct QueueSlot {
    hasher: Hasher,
    owner: WorkOwner,
}

impl Hasher {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the argon2 parameters are invalid, the peppers can't be read, or a thread can't
    /// start.
    pub fn start(config: &Passwords) -> anyhow::Result<Self> {
        let peppers = config.pepper.as_deref().map(Peppers::load).transpose()?;
        let peppers = Arc::new(peppers.unwrap_or_default());
        let scheme = Argon2id::new(config, peppers.clone())?;
        let current_cost = stored_hash::argon2id_cpu_cost(scheme.params());
        let bounds = Bounds {
            // Both waiting and running jobs hold a slot. There are at least two slots for each
            // thread. So one tenant can use all threads, although a tenant gets at most half of the
            // slots.
            slots: config.queue.max(config.threads) + config.threads,
            max_expensive_running: (config.threads / 2).max(1),
            max_cheap_cost: current_cost,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State { queue: queue::Queue::new(bounds), is_closed: false }),
            job_available: Condvar::new(),
            bounds,
            current_cost,
            scheme,
            peppers,
            metrics: Metrics::default(),
        });
        let hasher = Self(Arc::new(StopThreadsOnDrop(shared.clone())));
        for _ in 0..config.threads {
            let shared = shared.clone();
            thread::Builder::new()
                .name("password-hashing".into())
                .spawn(move || shared.run_jobs())?;
        }
        Ok(hasher)
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.shared().metrics.register(registry);
    }

    /// The numbers of slots and jobs in the queue now.
    #[must_use]
    pub fn usage(&self) -> QueueUsage {
        let to_u64 = |number| u64::try_from(number).unwrap_or(u64::MAX);
        let (taken, waiting) = {
            let state = self.shared().lock();
            (state.queue.used_slots(), state.queue.waiting_count())
        };
        let slots = to_u64(self.shared().bounds.slots);
        let memory_bytes = to_u64(self.shared().scheme.memory().allocated_bytes());
        QueueUsage { taken: to_u64(taken), slots, waiting: to_u64(waiting), memory_bytes }
    }

    /// The worst case of a comparison.
    #[must_use]
    pub fn worst_case(&self) -> WorstCase {
        let Shared { bounds, current_cost, .. } = self.shared();
        let time = Duration::from_micros(import::MAX_IMPORT_CPU_COST.max(*current_cost));
        WorstCase { time, at_once: bounds.max_expensive_running }
    }

    /// Takes a slot in the queue, without waiting.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when all slots are in use, or when the owner's tenant or network uses
    /// all slots that it may use.
    pub fn take_slot(&self, owner: WorkOwner) -> Result<QueueSlot> {
        let result = self.shared().lock().queue.take_slot(owner);
        result.map_err(|reason| self.refusal(reason))?;
        Ok(QueueSlot { hasher: self.clone(), owner })
    }

    /// Checks whether [`Self::take_slot`] would succeed now. An operation that needs a query before
    /// it takes the slot calls this first, so that a refused call causes no query.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` when [`Self::take_slot`] would fail.
    pub fn check_slot(&self, owner: WorkOwner) -> Result<()> {
        let result = self.shared().lock().queue.check_slot(owner);
        result.map_err(|reason| self.refusal(reason))
    }

    /// Counts a refusal, and returns the error of the call.
    fn refusal(&self, reason: QueueFull) -> Error {
        self.shared().metrics.record_refusal(reason);
        let text = "too many passwords are being checked; try again";
        Error::refused(ErrorReason::HashingQueueFull, text)
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}

impl Drop for StopThreadsOnDrop {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.job_available.notify_all();
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.hasher.shared().lock().queue.release_slot(self.owner);
    }
}

impl QueueSlot {
    /// Hashes a normalised password; returns the PHC string to store.
    ///
    /// # Errors
    /// INTERNAL when hashing fails. This does not happen with valid parameters.
    pub async fn hash(&mut self, password: SecretString) -> Result<String> {
        let current_cost = self.hasher.shared().current_cost;
        let hash = move |scheme: &Argon2id| scheme.hash(password.expose_secret().as_bytes());
        self.run(current_cost, hash).await
    }

    /// Compares a password with the stored hash, as a job of the slot's owner. If the stored hash
    /// is missing or unreadable, a hash with the configured parameters is computed instead, so the
    /// response time does not reveal this case. The result is then [`Comparison::Mismatch`]. An
    /// unreadable hash is logged with the tenant.
    ///
    /// # Errors
    /// INTERNAL when the comparison fails. This does not happen with valid parameters.
    pub async fn verify(
        &mut self,
        tenant: TenantId,
        password: &PresentedPassword,
        stored: Option<&str>,
    ) -> Result<Comparison> {
        let Some(stored) = stored.and_then(|stored| self.parse_stored(tenant, stored)) else {
            return self.dummy_hash(password.normalised()).await;
        };
        let forms = password.forms(&stored);
        let form_count = forms.len().try_into().unwrap_or(u64::MAX);
        let cost = stored.cpu_cost().saturating_mul(form_count);
        // One job compares all forms. With a job for each form, jobs of other owners could run
        // in between, and the response time would reveal the number of forms.
        let compare = move |scheme: &Argon2id| {
            for form in &forms {
                let outcome = scheme.verify(form.expose_secret().as_bytes(), &stored)?;
                if outcome != Comparison::Mismatch {
                    return Ok(outcome);
                }
            }
            Ok(Comparison::Mismatch)
        };
        self.run(cost, compare).await
    }

    /// Computes a hash and discards it. The result is always a mismatch.
    async fn dummy_hash(&mut self, password: SecretString) -> Result<Comparison> {
        let current_cost = self.hasher.shared().current_cost;
        let hash = move |scheme: &Argon2id| scheme.dummy_hash(password.expose_secret().as_bytes());
        self.run(current_cost, hash).await.map(|()| Comparison::Mismatch)
    }

    /// Parses a stored hash. Logs and counts an unreadable hash, and returns `None` for it.
    fn parse_stored(&self, tenant: TenantId, stored: &str) -> Option<StoredHash> {
        let shared = self.hasher.shared();
        let report = |reason| {
            match reason {
                UnreadableHash::Format => {
                    tracing::error!(%tenant, "a stored password hash can't be read");
                }
                UnreadableHash::Pepper => tracing::error!(
                    %tenant,
                    "a stored password hash has the id of a pepper that is not configured"
                ),
            }
            shared.metrics.record_unreadable(reason);
        };
        StoredHash::parse(stored, &shared.peppers).map_err(report).ok()
    }

    /// Runs a job on a thread and returns its result. If this future is dropped, a waiting job
    /// is removed from the queue.
    async fn run<T: Send + 'static>(
        &mut self,
        cost: u64,
        job: impl FnOnce(&Argon2id) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, receiver) = oneshot::channel();
        let run = Box::new(move |scheme: &Argon2id| {
            // The client may have cancelled the call after the job left the queue.
            if !reply.is_closed() {
                reply.send(job(scheme)).ok();
            }
        });
        let _queued = QueuedJob::push(self, cost, Job { run, queued_at: Instant::now() });
        receiver.await.map_err(|_| Error::defect("a hashing thread died"))?
    }
}

/// A job in the queue. Dropping the value removes the job from the queue, if the job still waits.
struct QueuedJob<'a> {
    slot: &'a QueueSlot,
    ticket: Ticket,
}

impl<'a> QueuedJob<'a> {
    fn push(slot: &'a QueueSlot, cost: u64, job: Job) -> Self {
        let shared = slot.hasher.shared();
        let ticket = shared.lock().queue.push(slot.owner, cost, job);
        shared.job_available.notify_one();
        Self { slot, ticket }
    }
}

impl Drop for QueuedJob<'_> {
    fn drop(&mut self) {
        // The lock is released before the job is dropped.
        let removed = self.slot.hasher.shared().lock().queue.remove(self.slot.owner, self.ticket);
        drop(removed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of one thread, until all hashers are dropped.
    fn run_jobs(&self) {
        priority::set(priority::HASHING);
        while let Some(NextJob { job, info }) = self.next_job() {
            let _running = RunningJob { shared: self, info };
            self.metrics.record_wait(info.expensive, job.queued_at.elapsed().as_secs_f64());
            (job.run)(&self.scheme);
        }
    }

    /// Waits for the next job; `None` when all hashers are dropped.
    fn next_job(&self) -> Option<NextJob<Job>> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                return None;
            }
            if let Some(next_job) = state.queue.next() {
                return Some(next_job);
            }
            if self.scheme.memory().has_unused() {
                let result = self.job_available.wait_timeout(state, KEEP_MEMORY);
                let (woken, timeout) = result.unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if timeout.timed_out() {
                    self.scheme.memory().free_unused();
                }
            } else {
                state = self.job_available.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

/// A running job. Dropping the value marks the job as ended.
struct RunningJob<'a> {
    shared: &'a Shared,
    info: JobInfo,
}

impl Drop for RunningJob<'_> {
    fn drop(&mut self) {
        self.shared.lock().queue.record_end(self.info);
        if self.info.expensive {
            // Another expensive job may wait for the end of this job.
            self.shared.job_available.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use tokio::runtime::Runtime;

    use super::*;
    use crate::passwords::{PasswordPolicy, normalise};

    fn hasher(threads: usize) -> Hasher {
        let config = Passwords {
            policy: PasswordPolicy::default(),
            memory_kib: 19_456,
            iterations: 2,
            parallelism: 1,
            pepper: None,
            threads,
            hashing_memory: u64::MAX,
            queue: 16,
        };
        Hasher::start(&config).expect("the threads start")
    }

    static HASHER: LazyLock<Hasher> = LazyLock::new(|| hasher(2));
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Runtime::new().expect("the runtime starts"));

    fn unknown_owner() -> WorkOwner {
        WorkOwner::new(TenantId::UNKNOWN, None)
    }

    async fn compare(slot: &mut QueueSlot, password: &str, stored: Option<&str>) -> Comparison {
        let password = PresentedPassword::new(password);
        slot.verify(TenantId::UNKNOWN, &password, stored).await.expect("the comparison succeeds")
    }

    fn verify(password: &str, stored: &str) -> Comparison {
        RUNTIME.block_on(async {
            let mut slot = HASHER.take_slot(unknown_owner()).expect("a slot is free");
            compare(&mut slot, password, Some(stored)).await
        })
    }

    fn bcrypt_hash(password: &str) -> String {
        bcrypt::hash_with_salt(password, 4, [7; 16]).expect("bcrypt succeeds").to_string()
    }

    /// Passwords of about 72 bytes, the maximum that bcrypt reads. They contain characters that
    /// NFKC changes; NFKC changes the length of some of these characters.
    fn password_of_about_72_bytes() -> impl Strategy<Value = String> {
        let characters = "[a-zé\u{301}…ﬁ½\u{fdfa}ｓ\u{0}]{0,6}";
        (60..76_usize, characters, "[a-z…ﬁ]{0,3}").prop_map(|(length, mut text, tail)| {
            while text.len() + tail.len() < length {
                text.insert(0, 'x');
            }
            text + &tail
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(100))]

        /// N05: an imported hash accepts each password that the old system accepted, as typed or
        /// in NFKC form. A password is rehashed only if the hash covers the whole password.
        #[test]
        fn an_imported_hash_accepts_the_passwords_that_the_old_system_accepted(
            password in password_of_about_72_bytes(),
            tail in "[a-zé…ﬁ]{0,3}",
            removed_bytes in 0..4_usize,
        ) {
            let stored = bcrypt_hash(&password);
            let normalised = normalise(&password).expose_secret().to_owned();
            // The same password with another end.
            let start_length = password.floor_char_boundary(password.len() - removed_bytes);
            let similar = format!("{}{tail}", &password[..start_length]);
            for presented in [&password, &normalised, &similar] {
                let nfkc = normalise(presented).expose_secret().to_owned();
                let old_system_accepts =
                    |text: &str| bcrypt::verify(text, &stored).expect("bcrypt succeeds");
                let outcome = verify(presented, &stored);
                prop_assert_eq!(
                    outcome != Comparison::Mismatch,
                    old_system_accepts(presented) || old_system_accepts(&nfkc)
                );
                if outcome == Comparison::OutdatedMatch {
                    // bcrypt reads 72 bytes of the password, a NUL, the password again and so on.
                    // So a password with a NUL may have the same hash as its part before the NUL.
                    let is_ambiguous = password.contains('\0');
                    prop_assert!(*presented == password || nfkc == password || is_ambiguous);
                }
            }
            let is_covered = password.len() < 72 && !password.contains('\0');
            let outcome = if is_covered { Comparison::OutdatedMatch } else { Comparison::Match };
            prop_assert_eq!(verify(&password, &stored), outcome);
        }
    }

    /// N12: a job computes no hash if the call was cancelled while the job waited. The job is no
    /// longer in the queue.
    #[tokio::test]
    async fn a_waiting_job_is_removed_when_its_call_is_cancelled() {
        let hasher = hasher(1);
        let slot = || hasher.take_slot(unknown_owner()).expect("a slot is free");
        let (mut first_slot, mut second_slot) = (slot(), slot());
        let mut first = Box::pin(compare(&mut first_slot, "password", None));
        let mut second = Box::pin(compare(&mut second_slot, "password", None));
        // The only thread runs the first job, and the second job waits.
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(second);
        assert_eq!(first.await, Comparison::Mismatch);
        assert_eq!(hasher.usage().waiting, 0);
        drop((first_slot, second_slot));
        assert_eq!(hasher.usage().taken, 0);
    }

    #[tokio::test]
    async fn a_comparison_with_an_unreadable_hash_is_a_mismatch() {
        let mut slot = HASHER.take_slot(unknown_owner()).expect("a slot is free");
        for stored in ["", "plain", "$2b$04$", "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA"] {
            assert_eq!(
                compare(&mut slot, "password", Some(stored)).await,
                Comparison::Mismatch,
                "{stored}"
            );
        }
    }
}
