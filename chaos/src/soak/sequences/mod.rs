//! Sequences of calls. Each creates objects, uses them and deletes them, so that the number of
//! objects stays the same. Together they call every method of the service.

mod accounts;
mod decisions;
mod passwords;
mod roles;
mod sessions;
mod streams;
mod tenants;
mod users;

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
};

use fastrand::Rng;

use super::{
    api::{Api, CallFailed},
    setup::Tenant,
};

/// The clients, the tenants and the state that all sequences share.
pub struct Mix {
    /// A client without a token.
    pub anonymous: Api,
    /// The platform's administrator.
    pub platform: Api,
    /// The tenants that exist during the whole run.
    pub tenants: Vec<Tenant>,
    /// The folder to which the service writes mails.
    pub mail_dir: PathBuf,
    /// Whether users are not deleted, so that the checks must find growth.
    pub keeps_users: bool,
    next_name: AtomicUsize,
    ends: AtomicBool,
}

type Result<T = ()> = std::result::Result<T, CallFailed>;

impl Mix {
    pub fn new(
        anonymous: Api,
        platform: Api,
        tenants: Vec<Tenant>,
        mail_dir: PathBuf,
        keeps_users: bool,
    ) -> Self {
        let (next_name, ends) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { anonymous, platform, tenants, mail_dir, keeps_users, next_name, ends }
    }

    /// Runs random sequences until [`Mix::end`].
    pub async fn work(&self, mut rng: Rng) {
        while !self.ends() {
            let tenant = &self.tenants[rng.usize(..self.tenants.len())];
            // A failed call ends its sequence. The meter has counted it.
            _ = match rng.u8(..100) {
                0..70 => self.decide(tenant, &mut rng).await,
                70..76 => self.use_user(tenant).await,
                76..85 => self.use_session(tenant, &mut rng).await,
                85..92 => self.use_role(tenant, &mut rng).await,
                92..97 => self.use_account(tenant).await,
                97..99 => self.reset_password(tenant).await,
                _ => self.use_tenant().await,
            };
        }
    }

    /// Opens and closes streams until [`Mix::end`].
    pub async fn watch(&self, mut rng: Rng) {
        while !self.ends() {
            let tenant = &self.tenants[rng.usize(..self.tenants.len())];
            _ = self.read_streams(tenant).await;
        }
    }

    pub fn end(&self) {
        self.ends.store(true, Ordering::Relaxed);
    }

    fn ends(&self) -> bool {
        self.ends.load(Ordering::Relaxed)
    }

    /// A name that no other object has.
    fn new_name(&self, kind: &str) -> String {
        format!("{kind}-{}", self.next_name.fetch_add(1, Ordering::Relaxed))
    }
}
