//! Login: a password for a session.
//!
//! Unknown tenant, suspended tenant, unknown user, disabled user, user without
//! a password, wrong password, imported hash: one answer, at one time ([`super::Failures`]).
//!
//! Without a tenant it is for those that have a user with the email: three at most, and
//! always three comparisons, however many there are and whichever is right. Of several
//! that are right the first counts: verified addresses first, then the oldest.

use std::sync::Arc;

use super::{
    SignIns,
    attempt::{Waiting, run_to_end},
    candidates::{self, Accounts},
    failures::SignIn,
    named_tenant,
};
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::invalid_credentials,
    credentials::password,
    email,
    error::{Error, Result},
    gate::NamedTenant,
    ids::{SessionId, TenantId, UserId},
    limits::Owner,
    passwords::{Outcome, Presented, QueueSlot},
    proto::v1::{ErrorReason, LoginRequest},
    sessions::{
        Lookup,
        open::{self, Opening, Proof, Unsigned},
    },
    tokens::TokenPair,
};

/// How often a password is compared: once more where another sign-in of the
/// same user replaced an outdated hash at the same moment.
const ATTEMPTS: usize = 2;

impl SignIns {
    pub async fn login(
        &self,
        sign_in: &Arc<SignIn>,
        metadata: &NamedTenant,
        origin: &Origin,
        message: LoginRequest,
    ) -> Result<TokenPair> {
        self.keyring.check_available()?;
        let (auth, metadata, origin) = (self.clone(), metadata.clone(), origin.clone());
        let sign_in = sign_in.clone();
        let opened = run_to_end(|waiting| async move {
            Box::pin(auth.sign_in(&sign_in, &metadata, &origin, &message, &waiting)).await
        });
        opened.await?.sign(self.keyring.clone()).await
    }

    async fn sign_in(
        &self,
        sign_in: &SignIn,
        metadata: &NamedTenant,
        origin: &Origin,
        message: &LoginRequest,
        waiting: &Waiting,
    ) -> Result<Unsigned> {
        let email_key = email::key(&message.email);
        let slug = &message.organization_slug;
        let tenant = self.tenant_to_sign_in(metadata, slug, origin).await?;
        let share = named_tenant::share(&self.limits, &tenant, origin.ip);
        let owner = Owner::new(share, origin.ip);
        let password = &Presented::new(&message.password);
        sign_in.count(owner, password, candidates::count(&tenant))?;
        let mut slot = self.hasher.slot(owner)?;
        let mut accounts = self.accounts(&tenant, share, &email_key, origin).await?;
        let trial = Trial {
            share,
            email_key: &email_key,
            password,
            device_name: &message.device_name,
            origin,
            waiting,
        };
        let opened = self.open(&mut slot, &mut accounts, trial).await;
        drop(slot);
        let right = opened.as_ref().map(|opened| opened.account);
        accounts.end_guesses(right).await;
        Ok(opened?.unsigned)
    }

    /// The tenant that a sign-in names.
    async fn tenant_to_sign_in(
        &self,
        metadata: &NamedTenant,
        slug: &str,
        origin: &Origin,
    ) -> Result<NamedTenant> {
        let by_slug = matches!(metadata, NamedTenant::Absent) && !slug.is_empty();
        if let Some(tenant) = self.seen.tenant(slug).filter(|_| by_slug) {
            // Who is refused for load costs Postgres nothing.
            self.hasher.room(Owner::new(tenant, origin.ip))?;
        }
        let tenant = named_tenant::tenant(&self.db, metadata, slug).await?;
        if by_slug {
            self.seen.remember(slug, tenant.known());
        }
        Ok(tenant)
    }

    /// Opens a session of the first account whose password this is.
    async fn open(
        &self,
        slot: &mut QueueSlot,
        accounts: &mut Accounts,
        trial: Trial<'_>,
    ) -> Result<Opened> {
        for _ in 0..ATTEMPTS {
            let Some(verified) = self.compare(slot, accounts, trial).await? else { break };
            if trial.waiting.is_over() {
                // Nobody would have its tokens. What was learnt is recorded like a failure.
                self.record_failure(accounts, trial).await?;
                return Err(Error::refused(ErrorReason::Cancelled, "the caller is gone"));
            }
            let account = verified.account;
            if let Some(unsigned) = self.open_verified(slot, verified, trial).await? {
                return Ok(Opened { account, unsigned });
            }
        }
        self.record_failure(accounts, trial).await?;
        Err(invalid_credentials())
    }

    /// Compares the password with each account's, also after it was found right. An account
    /// that was not named is looked up and compared as work of the one who asks.
    async fn compare(
        &self,
        slot: &mut QueueSlot,
        accounts: &mut Accounts,
        trial: Trial<'_>,
    ) -> Result<Option<Verified>> {
        let mut right = None;
        for (number, account) in accounts.all.iter_mut().enumerate() {
            let tenant = account.tenant.unwrap_or(TenantId::UNKNOWN);
            let candidate =
                password::candidate(&self.db, trial.share, tenant, trial.email_key).await?;
            account.user = candidate.as_ref().map(|candidate| candidate.user);
            let active = candidate.filter(|candidate| candidate.active);
            let (user, kept) = active.map(|c| (c.user, c.password_hash)).unzip();
            let kept = kept.flatten();
            // Work of the slot's owner: another tenant's backlog would tell where the email is
            // known.
            let outcome = slot.verify(tenant, trial.password, kept.as_deref()).await?;
            if let (None, Some(user), Some(hash), true) =
                (&right, user, kept, outcome != Outcome::Wrong)
            {
                right = Some(Verified { account: number, tenant, user, outcome, hash });
            }
        }
        Ok(right)
    }

    /// Opens a session for a password that was found right; `None` when what it was
    /// compared with has changed meanwhile.
    async fn open_verified(
        &self,
        slot: &mut QueueSlot,
        verified: Verified,
        trial: Trial<'_>,
    ) -> Result<Option<Unsigned>> {
        let (tenant, user) = (verified.tenant, verified.user);
        let new_hash = match verified.outcome {
            Outcome::RightButOutdated => Some(slot.hash(trial.password.normalised()).await?),
            _ => None,
        };
        let session = SessionId::new();
        // The session is about to be used: keep it where all replicas look
        // first. The look-up comes before it opens, so that what ends it
        // meanwhile keeps it out.
        let lookup = self.cache.lookup(tenant, session, user).await;
        let opening = Opening {
            tenant,
            user,
            session,
            proof: Proof::Password { verified_hash: &verified.hash, new_hash: new_hash.as_deref() },
            device_name: trial.device_name,
            origin: trial.origin,
        };
        let opened = open::open(&self.db, &self.keyring, self.lifetimes, opening).await?;
        if let (Some(unsigned), Lookup::Unknown(ticket)) = (&opened, lookup) {
            let life = unsigned.access_expires_at - unsigned.issued_at;
            self.cache.fill(ticket, life.whole_seconds()).await;
        }
        Ok(opened)
    }

    /// A failure's record stands alone, so that it does not roll back with it. It is with
    /// each tenant whose account was tried, or with none.
    async fn record_failure(&self, accounts: &Accounts, trial: Trial<'_>) -> Result<()> {
        let mut tried: Vec<_> =
            accounts.all.iter().filter_map(|a| Some((a.tenant?, a.user))).collect();
        if tried.is_empty() {
            tried.push((TenantId::UNKNOWN, None));
        }
        for (tenant, user) in tried {
            let mut event = Event::new(EventKind::SignInFailed);
            if let Some(user) = user {
                event = event.target(user.0);
            }
            let actor = Actor::anonymous(trial.origin);
            audit::record_in_share(&self.db, trial.share, tenant, &actor, event).await?;
        }
        Ok(())
    }
}

/// What somebody signs in with.
#[derive(Clone, Copy)]
struct Trial<'a> {
    /// Whose share it takes.
    share: TenantId,
    email_key: &'a str,
    password: &'a Presented,
    device_name: &'a str,
    origin: &'a Origin,
    waiting: &'a Waiting,
}

/// What the password was found right by.
struct Verified {
    /// The number of the account among those that were tried.
    account: usize,
    tenant: TenantId,
    user: UserId,
    outcome: Outcome,
    hash: String,
}

/// A session that was opened.
struct Opened {
    account: usize,
    unsigned: Unsigned,
}
