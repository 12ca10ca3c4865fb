//! The pool that hashes passwords: few threads of low priority, behind a short
//! queue, so that sign-ins never slow down decisions.

use std::{sync::Arc, thread};

use async_channel::{Receiver, Sender};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

use super::{
    pepper::Peppers,
    scheme::{Argon2id, Outcome},
};
use crate::{
    config::Passwords,
    error::{Error, Result},
    proto::v1::ErrorReason,
};

/// How much lower than the runtime's threads the hashing threads' priority is:
/// they get the cores that nobody else wants.
const NICENESS: i32 = 19;

type Job = Box<dyn FnOnce(&mut Argon2id) + Send>;

/// Hashes and verifies passwords. Cheap to clone; its threads end with the last
/// clone.
#[derive(Clone)]
pub struct Hasher {
    jobs: Sender<Job>,
    places: Arc<Semaphore>,
    total: usize,
}

/// How full the queue is.
pub struct Queue {
    /// Places that are taken, by those who wait and those who are served.
    pub taken: u64,
    /// All places.
    pub places: u64,
}

/// A place in the queue. Whoever has to ask others for what is to be hashed takes it
/// first: who is refused anyway costs nobody anything.
pub struct Place<'a> {
    hasher: &'a Hasher,
    _permit: SemaphorePermit<'a>,
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
        // There is a place for those who wait and for those who are served.
        let places = config.queue + config.threads;
        let (sender, receiver) = async_channel::bounded(places);
        for _ in 0..config.threads {
            let scheme = Argon2id::new(config, peppers.clone())?;
            let jobs = receiver.clone();
            thread::Builder::new()
                .name("password-hashing".into())
                .spawn(move || work(&jobs, scheme))?;
        }
        Ok(Self { jobs: sender, places: Arc::new(Semaphore::new(places)), total: places })
    }

    /// How full the queue is now.
    #[must_use]
    pub fn queue(&self) -> Queue {
        let taken = self.total.saturating_sub(self.places.available_permits());
        let count = |places| u64::try_from(places).unwrap_or(u64::MAX);
        Queue { taken: count(taken), places: count(self.total) }
    }

    /// Takes a place in the queue.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` at once when it is full.
    pub fn place(&self) -> Result<Place<'_>> {
        let full = |_| {
            let text = "too many passwords are being checked; try again";
            Error::refused(ErrorReason::HashingQueueFull, text)
        };
        Ok(Place { hasher: self, _permit: self.places.try_acquire().map_err(full)? })
    }

    /// The PHC string to keep for a normalised password.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` at once when the queue is full.
    pub async fn hash(&self, password: SecretString) -> Result<String> {
        self.place()?.hash(password).await
    }
}

impl Place<'_> {
    /// The PHC string to keep for a normalised password.
    ///
    /// # Errors
    /// INTERNAL when it can't be made, which no password makes it.
    pub async fn hash(&self, password: SecretString) -> Result<String> {
        self.run(move |scheme| scheme.hash(password.expose_secret().as_bytes())).await
    }

    /// Compares a normalised password with what is kept. With nothing kept it
    /// does the same work and finds it wrong, so that a user who is not there
    /// can't be told from a wrong password by the time it takes.
    ///
    /// # Errors
    /// INTERNAL for a hash that can't be read.
    pub async fn verify(&self, password: SecretString, kept: Option<String>) -> Result<Outcome> {
        self.run(move |scheme| {
            let password = password.expose_secret().as_bytes();
            match kept {
                Some(kept) => scheme.verify(password, &kept),
                None => scheme.work_for_nothing(password).map(|()| Outcome::Wrong),
            }
        })
        .await
    }

    async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Argon2id) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |scheme| {
            // Nobody waits any more: the call was cancelled or timed out.
            if !reply.is_closed() {
                reply.send(job(scheme)).ok();
            }
        });
        // There is room for all who have a place, but for jobs that nobody waits for any
        // more; they end at once.
        let sent = self.hasher.jobs.send(job).await;
        sent.map_err(|_| Error::defect("the hashing threads are gone"))?;
        answer.await.map_err(|_| Error::defect("a hashing thread died"))?
    }
}

fn work(jobs: &Receiver<Job>, mut scheme: Argon2id) {
    // On Linux this is the priority of this thread alone. Hashing works
    // without it, only less politely.
    if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
        tracing::warn!(%error, "hashing threads keep their normal priority");
    }
    while let Ok(job) = jobs.recv_blocking() {
        job(&mut scheme);
    }
}
