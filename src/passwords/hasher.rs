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
    metrics::Metrics,
    pepper::Peppers,
    presented::Presented,
    queue::{self, Bounds, Full, Kind, Ticket, Turn},
    scheme::{Argon2id, Outcome},
    stored_hash::{self, StoredHash, UnreadableHash},
};
use crate::{
    concurrency::priority,
    config::Passwords,
    error::{Error, Result},
    ids::TenantId,
    limits::Owner,
    proto::v1::ErrorReason,
};

/// Hashes and verifies passwords. Cheap to clone. The threads stop when the last clone and the
/// last slot are dropped.
#[derive(Clone)]
pub struct Hasher(Arc<Threads>);

/// Stops the threads on drop.
struct Threads(Arc<Shared>);

/// State shared by the threads and the callers.
struct Shared {
    state: Mutex<State>,
    /// Signalled when a job may have become runnable.
    work: Condvar,
    bounds: Bounds,
    /// The cost of a hash with the configured parameters, in microseconds of CPU time.
    current_cost: u64,
    peppers: Arc<Peppers>,
    metrics: Metrics,
}

struct State {
    queue: queue::Queue<Job>,
    closed: bool,
}

struct Job {
    run: Box<dyn FnOnce(&mut Argon2id) + Send>,
    queued_at: Instant,
}

/// Numbers of slots and jobs in the queue.
pub struct Usage {
    /// Number of slots in use, by waiting and running jobs and by holders without a job.
    pub taken: u64,
    /// Number of slots.
    pub slots: u64,
    /// Number of jobs that wait for a thread.
    pub waiting: u64,
}

/// The worst case of a comparison, with the most expensive hash that is allowed.
#[derive(Clone, Copy, Debug)]
pub struct WorstCase {
    /// Estimated CPU time of one such comparison.
    pub time: Duration,
    /// Maximum number of such comparisons that run concurrently.
    pub at_once: usize,
}

/// A slot in the hashing queue. Its holder may run hash jobs one after another.
pub struct QueueSlot {
    hasher: Hasher,
    owner: Owner,
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
        let current_cost = stored_hash::work(Argon2id::new(config, peppers.clone())?.params());
        let bounds = Bounds {
            // Both waiting and running jobs hold a slot. A tenant gets at most half of
            // the slots, and that half is enough to use all threads.
            slots: config.queue.max(config.threads) + config.threads,
            max_expensive_running: (config.threads / 2).max(1),
            cheap: current_cost,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State { queue: queue::Queue::new(bounds), closed: false }),
            work: Condvar::new(),
            bounds,
            current_cost,
            peppers: peppers.clone(),
            metrics: Metrics::default(),
        });
        let hasher = Self(Arc::new(Threads(shared.clone())));
        for _ in 0..config.threads {
            let (shared, scheme) = (shared.clone(), Argon2id::new(config, peppers.clone())?);
            thread::Builder::new()
                .name("password-hashing".into())
                .spawn(move || shared.work(scheme))?;
        }
        Ok(hasher)
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.shared().metrics.register(registry);
    }

    /// The numbers of slots and jobs in the queue now.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let count = |number| u64::try_from(number).unwrap_or(u64::MAX);
        let (taken, waiting) = {
            let state = self.shared().lock();
            (state.queue.taken(), state.queue.waiting())
        };
        let slots = count(self.shared().bounds.slots);
        Usage { taken: count(taken), slots, waiting: count(waiting) }
    }

    /// The worst case of a comparison.
    #[must_use]
    pub fn worst_case(&self) -> WorstCase {
        let Shared { bounds, current_cost, .. } = self.shared();
        let time = Duration::from_micros(stored_hash::MAX_IMPORT_WORK.max(*current_cost));
        WorstCase { time, at_once: bounds.max_expensive_running }
    }

    /// Takes a slot in the queue. A refused call costs no hash.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, without waiting, when the queue is full or when the owner's tenant
    /// or network holds its share of the slots.
    pub fn slot(&self, owner: Owner) -> Result<QueueSlot> {
        let result = self.shared().lock().queue.take(owner);
        result.map_err(|full| self.refused(full))?;
        Ok(QueueSlot { hasher: self.clone(), owner })
    }

    /// Checks whether [`Self::slot`] would succeed now. For callers that must query a store before
    /// they know their tenant.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, as [`Self::slot`].
    pub fn room(&self, owner: Owner) -> Result<()> {
        let result = self.shared().lock().queue.room(owner);
        result.map_err(|full| self.refused(full))
    }

    fn refused(&self, full: Full) -> Error {
        self.shared().metrics.refused(full);
        let text = "too many passwords are being checked; try again";
        Error::refused(ErrorReason::HashingQueueFull, text)
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.work.notify_all();
    }
}

impl Drop for QueueSlot {
    fn drop(&mut self) {
        self.hasher.shared().lock().queue.release(self.owner);
    }
}

impl QueueSlot {
    /// Hashes a normalised password; returns the PHC string to store.
    ///
    /// # Errors
    /// INTERNAL when hashing fails. No password causes this.
    pub async fn hash(&mut self, password: SecretString) -> Result<String> {
        let current_cost = self.hasher.shared().current_cost;
        let hash = move |scheme: &mut Argon2id| scheme.hash(password.expose_secret().as_bytes());
        self.run(current_cost, hash).await
    }

    /// Compares a password with the stored hash, as a job of the slot's owner. If the stored hash
    /// is missing or unreadable, a hash with the configured parameters is computed instead and the
    /// outcome is [`Outcome::Wrong`], so the response time does not reveal this case. An unreadable
    /// hash is logged with the tenant.
    ///
    /// # Errors
    /// INTERNAL when the comparison fails. No password causes this.
    pub async fn verify(
        &mut self,
        tenant: TenantId,
        password: &Presented,
        stored: Option<&str>,
    ) -> Result<Outcome> {
        let Some(stored) = stored.and_then(|stored| self.read(tenant, stored)) else {
            return self.dummy_hash(password.normalised()).await;
        };
        let forms = password.forms(&stored);
        let work = stored.work().saturating_mul(forms.len().try_into().unwrap_or(u64::MAX));
        // One job compares all forms. With a job per form, jobs of other owners could run in
        // between, and the response time would reveal the number of forms.
        let compare = move |scheme: &mut Argon2id| {
            for form in &forms {
                let outcome = scheme.verify(form.expose_secret().as_bytes(), &stored)?;
                if outcome != Outcome::Wrong {
                    return Ok(outcome);
                }
            }
            Ok(Outcome::Wrong)
        };
        self.run(work, compare).await
    }

    async fn dummy_hash(&mut self, password: SecretString) -> Result<Outcome> {
        let current_cost = self.hasher.shared().current_cost;
        let work =
            move |scheme: &mut Argon2id| scheme.dummy_hash(password.expose_secret().as_bytes());
        self.run(current_cost, work).await.map(|()| Outcome::Wrong)
    }

    /// Parses a stored hash. Logs and counts an unreadable hash, and returns `None` for it.
    fn read(&self, tenant: TenantId, stored: &str) -> Option<StoredHash> {
        let shared = self.hasher.shared();
        let unreadable = |why| {
            match why {
                UnreadableHash::Form => {
                    tracing::error!(%tenant, "a stored password hash can't be read");
                }
                UnreadableHash::Pepper => tracing::error!(
                    %tenant,
                    "a password's hash names a pepper that is not configured"
                ),
            }
            shared.metrics.unreadable(why);
        };
        StoredHash::read(stored, &shared.peppers).map_err(unreadable).ok()
    }

    /// Runs a job on a thread and returns its result. If this future is dropped, a waiting job
    /// is removed from the queue.
    async fn run<T: Send + 'static>(
        &mut self,
        work: u64,
        job: impl FnOnce(&mut Argon2id) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, receiver) = oneshot::channel();
        let run = Box::new(move |scheme: &mut Argon2id| {
            // The caller may have cancelled the call after the job left the queue.
            if !reply.is_closed() {
                reply.send(job(scheme)).ok();
            }
        });
        let _waiting = Waiting::begin(self, work, Job { run, queued_at: Instant::now() });
        receiver.await.map_err(|_| Error::defect("a hashing thread died"))?
    }
}

/// A waiting job. Dropping the value removes the job from the queue.
struct Waiting<'a> {
    slot: &'a QueueSlot,
    ticket: Ticket,
}

impl<'a> Waiting<'a> {
    fn begin(slot: &'a QueueSlot, work: u64, job: Job) -> Self {
        let shared = slot.hasher.shared();
        let ticket = shared.lock().queue.push(slot.owner, work, job);
        shared.work.notify_one();
        Self { slot, ticket }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let removed = self.slot.hasher.shared().lock().queue.remove(self.slot.owner, self.ticket);
        drop(removed);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loop of one thread, until all hashers are dropped.
    fn work(&self, mut scheme: Argon2id) {
        priority::set(priority::HASHING);
        while let Some(Turn { job, kind }) = self.next() {
            let _running = RunningJob { shared: self, kind };
            self.metrics.waited(kind.expensive, job.queued_at.elapsed().as_secs_f64());
            (job.run)(&mut scheme);
        }
    }

    /// Waits for the next job; `None` when all hashers are dropped.
    fn next(&self) -> Option<Turn<Job>> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(turn) = state.queue.next() {
                return Some(turn);
            }
            state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A running job. Dropping the value marks the job as ended.
struct RunningJob<'a> {
    shared: &'a Shared,
    kind: Kind,
}

impl Drop for RunningJob<'_> {
    fn drop(&mut self) {
        self.shared.lock().queue.ended(self.kind);
        if self.kind.expensive {
            // Another expensive job may wait for the end of this job.
            self.shared.work.notify_one();
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
            queue: 16,
        };
        Hasher::start(&config).expect("the threads cannot start")
    }

    static HASHER: LazyLock<Hasher> = LazyLock::new(|| hasher(2));
    static RUNTIME: LazyLock<Runtime> =
        LazyLock::new(|| Runtime::new().expect("the runtime cannot start"));

    fn unknown_owner() -> Owner {
        Owner::new(TenantId::UNKNOWN, None)
    }

    async fn compare(slot: &mut QueueSlot, password: &str, stored: Option<&str>) -> Outcome {
        let password = Presented::new(password);
        slot.verify(TenantId::UNKNOWN, &password, stored).await.expect("the comparison failed")
    }

    fn verify(password: &str, stored: &str) -> Outcome {
        RUNTIME.block_on(async {
            let mut slot = HASHER.slot(unknown_owner()).expect("no slot is free");
            compare(&mut slot, password, Some(stored)).await
        })
    }

    fn bcrypt_hash(password: &str) -> String {
        bcrypt::hash_with_salt(password, 4, [7; 16]).expect("bcrypt failed").to_string()
    }

    /// Passwords of about 72 bytes, the maximum that bcrypt reads. They contain characters that
    /// NFKC changes; NFKC changes the length of some of these characters.
    fn password() -> impl Strategy<Value = String> {
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

        /// N05: an imported hash accepts each password that its old system accepted, as typed or
        /// in NFKC form. A password is rehashed only if the hash proves the whole password.
        #[test]
        fn an_imported_hash_accepts_the_passwords_that_its_old_system_accepted(
            password in password(),
            tail in "[a-zé…ﬁ]{0,3}",
            cut in 0..4_usize,
        ) {
            let stored = bcrypt_hash(&password);
            let normalised = normalise(&password).expose_secret().to_owned();
            let cut = password.floor_char_boundary(password.len() - cut);
            let other = format!("{}{tail}", &password[..cut]);
            for presented in [&password, &normalised, &other] {
                let form = normalise(presented).expose_secret().to_owned();
                let old_system_accepts =
                    |form: &str| bcrypt::verify(form, &stored).expect("bcrypt failed");
                let outcome = verify(presented, &stored);
                prop_assert_eq!(
                    outcome != Outcome::Wrong,
                    old_system_accepts(presented) || old_system_accepts(&form)
                );
                if outcome == Outcome::RightButOutdated {
                    prop_assert!(*presented == password || form == password);
                }
            }
            let is_proven = password.len() < 72 && !password.contains('\0');
            let outcome = if is_proven { Outcome::RightButOutdated } else { Outcome::Right };
            prop_assert_eq!(verify(&password, &stored), outcome);
        }
    }

    /// N12: a job whose caller cancelled the call computes no hash.
    #[tokio::test]
    async fn a_waiting_job_is_removed_when_its_caller_cancels() {
        let hasher = hasher(1);
        let slot = || hasher.slot(unknown_owner()).expect("no slot is free");
        let (mut one, mut other) = (slot(), slot());
        let mut first = Box::pin(compare(&mut one, "password", None));
        let mut second = Box::pin(compare(&mut other, "password", None));
        assert!(futures_util::poll!(first.as_mut()).is_pending());
        assert!(futures_util::poll!(second.as_mut()).is_pending());
        drop(second);
        assert_eq!(first.await, Outcome::Wrong);
        assert_eq!(hasher.usage().waiting, 0);
        drop((one, other));
        assert_eq!(hasher.usage().taken, 0);
    }

    #[tokio::test]
    async fn a_comparison_with_an_unreadable_hash_is_wrong() {
        let mut slot = HASHER.slot(unknown_owner()).expect("no slot is free");
        for stored in ["", "plain", "$2b$04$", "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA"] {
            assert_eq!(
                compare(&mut slot, "password", Some(stored)).await,
                Outcome::Wrong,
                "{stored}"
            );
        }
    }
}
