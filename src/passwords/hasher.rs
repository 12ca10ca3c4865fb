//! The pool that hashes passwords: few threads of low priority, behind a short
//! queue, so that sign-ins never slow down decisions.

use std::{sync::Arc, thread};

use async_channel::{Receiver, Sender, TrySendError};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::oneshot;

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
        let (sender, receiver) = async_channel::bounded(config.queue);
        for _ in 0..config.threads {
            let scheme = Argon2id::new(config, peppers.clone())?;
            let jobs = receiver.clone();
            thread::Builder::new()
                .name("password-hashing".into())
                .spawn(move || work(&jobs, scheme))?;
        }
        Ok(Self { jobs: sender })
    }

    /// The PHC string to keep for a normalised password.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` at once when the queue is full.
    pub async fn hash(&self, password: SecretString) -> Result<String> {
        self.run(move |scheme| scheme.hash(password.expose_secret().as_bytes())).await
    }

    /// Compares a normalised password with what is kept. With nothing kept it
    /// does the same work and finds it wrong, so that a user who is not there
    /// can't be told from a wrong password by the time it takes.
    ///
    /// # Errors
    /// `RESOURCE_EXHAUSTED` at once when the queue is full.
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
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Error::refused(
                ErrorReason::HashingQueueFull,
                "too many passwords are being checked; try again",
            ),
            TrySendError::Closed(_) => Error::defect("the hashing threads are gone"),
        })?;
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
