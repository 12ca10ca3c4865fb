//! The thread pool that hashes passwords. It has few threads of low priority, so sign-ins never
//! slow down decisions. Its queue is short, and fair between tenants and between networks, so
//! the sign-ins of one tenant or network do not slow down those of others.

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
    today: u64,
    peppers: Arc<Peppers>,
    metrics: Metrics,
}

struct State {
    queue: queue::Queue<Job>,
    closed: bool,
}

struct Job {
    run: Box<dyn FnOnce(&mut Argon2id) + Send>,
    since: Instant,
}

/// How full the queue is.
pub struct Usage {
    /// Slots in use, by waiting and running jobs and by holders without a job.
    pub taken: u64,
    /// Number of slots.
    pub slots: u64,
    /// Jobs that wait for a thread.
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
        let today = stored_hash::work(Argon2id::new(config, peppers.clone())?.params());
        let bounds = Bounds {
            // A slot is held both by waiting and by running jobs. A tenant gets at most half of
            // the slots, and that half is enough to use all threads.
            slots: config.queue.max(config.threads) + config.threads,
            max_expensive_running: (config.threads / 2).max(1),
            cheap: today,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(State { queue: queue::Queue::new(bounds), closed: false }),
            work: Condvar::new(),
            bounds,
            today,
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

    /// How full the queue is now.
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
        let Shared { bounds, today, .. } = self.shared();
        let time = Duration::from_micros(stored_hash::MAX_IMPORT_WORK.max(*today));
        WorstCase { time, at_once: bounds.max_expensive_running }
    }

    /// Takes a slot in the queue. A refused call costs no hash.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, without waiting, when the queue is full or when the owner's tenant
    /// or network holds its share of it.
    pub fn slot(&self, owner: Owner) -> Result<QueueSlot> {
        let taken = self.shared().lock().queue.take(owner);
        taken.map_err(|full| self.refused(full))?;
        Ok(QueueSlot { hasher: self.clone(), owner })
    }

    /// Whether [`Self::slot`] would succeed now: for callers that must query a store before
    /// they know their tenant for certain.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED`, as [`Self::slot`].
    pub fn room(&self, owner: Owner) -> Result<()> {
        let room = self.shared().lock().queue.room(owner);
        room.map_err(|full| self.refused(full))
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
        let today = self.hasher.shared().today;
        let hash = move |scheme: &mut Argon2id| scheme.hash(password.expose_secret().as_bytes());
        self.run(today, hash).await
    }

    /// Compares a password with the stored hash, as a job of the slot's owner. If there is no
    /// stored hash, or it can't be read, a hash with the configured parameters is computed
    /// instead and the outcome is [`Outcome::Wrong`], so the response time does not reveal it.
    /// An unreadable hash is logged with the tenant.
    ///
    /// # Errors
    /// INTERNAL when the comparison fails. No password causes this.
    pub async fn verify(
        &mut self,
        tenant: TenantId,
        password: &Presented,
        kept: Option<&str>,
    ) -> Result<Outcome> {
        let Some(kept) = kept.and_then(|kept| self.read(tenant, kept)) else {
            return self.dummy_hash(password.normalised()).await;
        };
        let forms = password.forms(&kept);
        let work = kept.work().saturating_mul(forms.len().try_into().unwrap_or(u64::MAX));
        // One job for all forms: the jobs of others between two jobs would reveal that there
        // are two.
        let compare = move |scheme: &mut Argon2id| {
            for form in &forms {
                let outcome = scheme.verify(form.expose_secret().as_bytes(), &kept)?;
                if outcome != Outcome::Wrong {
                    return Ok(outcome);
                }
            }
            Ok(Outcome::Wrong)
        };
        self.run(work, compare).await
    }

    async fn dummy_hash(&mut self, password: SecretString) -> Result<Outcome> {
        let today = self.hasher.shared().today;
        let work =
            move |scheme: &mut Argon2id| scheme.dummy_hash(password.expose_secret().as_bytes());
        self.run(today, work).await.map(|()| Outcome::Wrong)
    }

    /// Parses a stored hash. If it can't be parsed, logs and counts that and returns `None`.
    fn read(&self, tenant: TenantId, kept: &str) -> Option<StoredHash> {
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
        StoredHash::read(kept, &shared.peppers).map_err(unreadable).ok()
    }

    /// Runs a job on a thread and returns its result. If this future is dropped, a waiting job
    /// is removed from the queue.
    async fn run<T: Send + 'static>(
        &mut self,
        work: u64,
        job: impl FnOnce(&mut Argon2id) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let run = Box::new(move |scheme: &mut Argon2id| {
            // The caller may have cancelled after the job left the queue.
            if !reply.is_closed() {
                reply.send(job(scheme)).ok();
            }
        });
        let _waiting = Waiting::begin(self, work, Job { run, since: Instant::now() });
        answer.await.map_err(|_| Error::defect("a hashing thread died"))?
    }
}

/// A waiting job; it is removed from the queue on drop.
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
            self.metrics.waited(kind.expensive, job.since.elapsed().as_secs_f64());
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

/// A running job; marked as ended on drop.
struct RunningJob<'a> {
    shared: &'a Shared,
    kind: Kind,
}

impl Drop for RunningJob<'_> {
    fn drop(&mut self) {
        self.shared.lock().queue.ended(self.kind);
        if self.kind.expensive {
            // Another expensive job may wait for the end of this one.
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
        Hasher::start(&config).expect("threads")
    }

    static HASHER: LazyLock<Hasher> = LazyLock::new(|| hasher(2));
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

    fn nobody() -> Owner {
        Owner::new(TenantId::UNKNOWN, None)
    }

    async fn compare(slot: &mut QueueSlot, password: &str, kept: Option<&str>) -> Outcome {
        let password = Presented::new(password);
        slot.verify(TenantId::UNKNOWN, &password, kept).await.expect("compared")
    }

    fn verify(password: &str, kept: &str) -> Outcome {
        RUNTIME.block_on(async {
            let mut slot = HASHER.slot(nobody()).expect("a slot");
            compare(&mut slot, password, Some(kept)).await
        })
    }

    fn bcrypt_of(password: &str) -> String {
        bcrypt::hash_with_salt(password, 4, [7; 16]).expect("bcrypt").to_string()
    }

    /// Texts of about 72 bytes, the length that bcrypt reads, with characters that NFKC
    /// changes, some of them in length.
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

        /// N05: an imported hash accepts what its old system accepted, as typed or in NFKC
        /// form. Only a password that the hash proves completely is rehashed.
        #[test]
        fn an_imported_hash_takes_what_its_old_system_took(
            password in password(),
            tail in "[a-zé…ﬁ]{0,3}",
            cut in 0..4_usize,
        ) {
            let kept = bcrypt_of(&password);
            let normalised = normalise(&password).expose_secret().to_owned();
            let cut = password.floor_char_boundary(password.len() - cut);
            let other = format!("{}{tail}", &password[..cut]);
            for presented in [&password, &normalised, &other] {
                let form = normalise(presented).expose_secret().to_owned();
                let old = |form: &str| bcrypt::verify(form, &kept).expect("bcrypt");
                let found = verify(presented, &kept);
                prop_assert_eq!(found != Outcome::Wrong, old(presented) || old(&form));
                if found == Outcome::RightButOutdated {
                    prop_assert!(*presented == password || form == password);
                }
            }
            let whole = password.len() < 72 && !password.contains('\0');
            let outcome = if whole { Outcome::RightButOutdated } else { Outcome::Right };
            prop_assert_eq!(verify(&password, &kept), outcome);
        }
    }

    /// N12: a job whose caller has gone costs no hash.
    #[tokio::test]
    async fn a_job_goes_with_its_caller() {
        let hasher = hasher(1);
        let slot = || hasher.slot(nobody()).expect("a slot");
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
    async fn what_can_not_be_read_is_wrong() {
        let mut slot = HASHER.slot(nobody()).expect("a slot");
        for kept in ["", "plain", "$2b$04$", "$argon2id$v=19$m=19456,t=2,p=1$AAAA$AAAA"] {
            assert_eq!(compare(&mut slot, "password", Some(kept)).await, Outcome::Wrong, "{kept}");
        }
    }
}
