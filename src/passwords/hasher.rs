//! The pool that hashes passwords: few threads of low priority behind a short queue that is
//! fair between tenants and between networks, so that sign-ins never slow down decisions,
//! and no tenant's or network's those of another.

use std::{
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

use super::{
    kept::{self, Kept, Unreadable},
    metrics::Metrics,
    pepper::Peppers,
    presented::Presented,
    queue::{self, Bounds, Full, Kind, Ticket, Turn},
    scheme::{Argon2id, Outcome},
};
use crate::{
    concurrency::priority,
    config::Passwords,
    error::{Error, Result},
    ids::TenantId,
    limits::Owner,
    proto::v1::ErrorReason,
};

/// Hashes and verifies passwords. Cheap to clone; its threads end with the last
/// clone and the last slot.
#[derive(Clone)]
pub struct Hasher(Arc<Threads>);

/// The threads, until dropped.
struct Threads(Arc<Shared>);

/// What the threads and those who wait for them share.
struct Shared {
    state: Mutex<State>,
    /// Told when a job may have become the next.
    work: Condvar,
    bounds: Bounds,
    /// What a hash with today's parameters takes.
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
    /// Slots that are taken, by those who wait and those who are served.
    pub taken: u64,
    /// All slots.
    pub slots: u64,
    /// Passwords that wait for a thread.
    pub waiting: u64,
}

/// Comparisons with the costliest hashes that there may be.
#[derive(Clone, Copy, Debug)]
pub struct Costliest {
    /// What one takes, about.
    pub time: Duration,
    /// How many run at once.
    pub at_once: usize,
}

/// A slot in the hashing queue: its holder may hash one password after the other.
pub struct QueueSlot {
    hasher: Hasher,
    owner: Owner,
}

impl Hasher {
    /// Starts the threads.
    ///
    /// # Errors
    /// When the parameters are no argon2 parameters, the peppers can't be read, or a
    /// thread can't start.
    pub fn start(config: &Passwords) -> anyhow::Result<Self> {
        let peppers = config.pepper.as_deref().map(Peppers::load).transpose()?;
        let peppers = Arc::new(peppers.unwrap_or_default());
        let today = kept::work(Argon2id::new(config, peppers.clone())?.params());
        let bounds = Bounds {
            // For those who wait and those who are served; half of them suffice to use all
            // threads.
            slots: config.queue.max(config.threads) + config.threads,
            expensive_at_once: (config.threads / 2).max(1),
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

    /// Shows what is counted.
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

    /// Comparisons with the costliest hashes.
    #[must_use]
    pub fn costliest(&self) -> Costliest {
        let Shared { bounds, today, .. } = self.shared();
        let time = Duration::from_micros(kept::COSTLIEST.max(*today));
        Costliest { time, at_once: bounds.expensive_at_once }
    }

    /// Takes a slot in the queue. Who is refused has cost nobody a hash.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` at once when it is full, or its owner's tenant or network has
    /// its share of it.
    pub fn slot(&self, owner: Owner) -> Result<QueueSlot> {
        let taken = self.shared().lock().queue.take(owner);
        taken.map_err(|full| self.refused(full))?;
        Ok(QueueSlot { hasher: self.clone(), owner })
    }

    /// Whether [`Self::slot`] would find a slot now: for those who have to ask others
    /// before they know their tenant for certain.
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
    /// The PHC string to keep for a normalised password.
    ///
    /// # Errors
    /// INTERNAL when it can't be made, which no password makes it.
    pub async fn hash(&mut self, password: SecretString) -> Result<String> {
        let today = self.hasher.shared().today;
        let hash = move |scheme: &mut Argon2id| scheme.hash(password.expose_secret().as_bytes());
        self.run(today, hash).await
    }

    /// Compares a password with what a tenant keeps, as a job of the slot's owner. With
    /// nothing kept, or something that can't be read, which is logged for the tenant, it does
    /// the work of a comparison and finds it wrong, so that this user can't be told from others
    /// by the time it takes.
    ///
    /// # Errors
    /// INTERNAL when it can't be compared, which no password makes it.
    pub async fn verify(
        &mut self,
        tenant: TenantId,
        password: &Presented,
        kept: Option<&str>,
    ) -> Result<Outcome> {
        let Some(kept) = kept.and_then(|kept| self.read(tenant, kept)) else {
            return self.work_for_nothing(password.normalised()).await;
        };
        let forms = password.forms(&kept);
        let work = kept.work().saturating_mul(forms.len().try_into().unwrap_or(u64::MAX));
        // One job for all forms: between two, others' jobs would show that there are two.
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

    async fn work_for_nothing(&mut self, password: SecretString) -> Result<Outcome> {
        let today = self.hasher.shared().today;
        let work = move |scheme: &mut Argon2id| {
            scheme.work_for_nothing(password.expose_secret().as_bytes())
        };
        self.run(today, work).await.map(|()| Outcome::Wrong)
    }

    /// What is kept; `None`, logged and counted, where it can't be read.
    fn read(&self, tenant: TenantId, kept: &str) -> Option<Kept> {
        let shared = self.hasher.shared();
        let unreadable = |why| {
            match why {
                Unreadable::Form => {
                    tracing::error!(%tenant, "a stored password hash can't be read");
                }
                Unreadable::Pepper => tracing::error!(
                    %tenant,
                    "a password's hash names a pepper that is not configured"
                ),
            }
            shared.metrics.unreadable(why);
        };
        Kept::read(kept, &shared.peppers).map_err(unreadable).ok()
    }

    /// What a thread makes of a job. When the caller goes, a job that waits goes too.
    async fn run<T: Send + 'static>(
        &mut self,
        work: u64,
        job: impl FnOnce(&mut Argon2id) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let run = Box::new(move |scheme: &mut Argon2id| {
            // The caller has gone since the job's turn came.
            if !reply.is_closed() {
                reply.send(job(scheme)).ok();
            }
        });
        let _waiting = Waiting::begin(self, work, Job { run, since: Instant::now() });
        answer.await.map_err(|_| Error::defect("a hashing thread died"))?
    }
}

/// A job that waits for its turn; dropped, it waits no more.
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

    /// One thread's work, until all hashers are gone.
    fn work(&self, mut scheme: Argon2id) {
        priority::set(priority::HASHING);
        while let Some(Turn { job, kind }) = self.next() {
            let _running = Running { shared: self, kind };
            self.metrics.waited(kind.expensive, job.since.elapsed().as_secs_f64());
            (job.run)(&mut scheme);
        }
    }

    /// Waits for the next job; `None` when all hashers are gone.
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

/// A job that a thread works on, until dropped.
struct Running<'a> {
    shared: &'a Shared,
    kind: Kind,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.shared.lock().queue.ended(self.kind);
        if self.kind.expensive {
            // Another may have waited for this one's end.
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
    use crate::passwords::normalise;

    fn hasher(threads: usize) -> Hasher {
        let config = Passwords {
            min_length: 8,
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

    /// Text around the 72 bytes that bcrypt reads, with characters that NFKC changes, also
    /// in their length.
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

        /// N05: an imported hash takes what its old system took, typed so or in the form
        /// NFKC, and only a password that it proves is to be kept in another form.
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

    /// N12: what a caller has left behind costs nobody anything.
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
