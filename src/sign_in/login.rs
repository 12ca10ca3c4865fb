//! Login: opens a session for a correct password.
//!
//! All failures give the same response after the same time ([`super::Failures`]): an unknown or
//! suspended tenant, an unknown or disabled user, a user without a password, and a wrong
//! password, also with a hash imported from another system.
//!
//! If the caller names no tenant, at most three tenants are tried that have a user with the
//! email. There are always three comparisons, whatever the number of accounts, and also after
//! a match. If the password matches several accounts, the first one is used: accounts with a
//! verified address come first, then the oldest.

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
    credentials::{invalid_credentials, password},
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

/// Maximum rounds of comparison. The second round is needed if a concurrent sign-in replaced
/// the hash.
const MAX_ROUNDS: usize = 2;

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
        let unsigned = run_to_end(|waiting| async move {
            Box::pin(auth.sign_in(&sign_in, &metadata, &origin, &message, &waiting)).await
        });
        unsigned.await?.sign(self.keyring.clone()).await
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
        let attempt = Attempt {
            share,
            email_key: &email_key,
            password,
            device_name: &message.device_name,
            origin,
            waiting,
        };
        let result = self.open(&mut slot, &mut accounts, attempt).await;
        drop(slot);
        let matching_account = result.as_ref().map(|session| session.account);
        accounts.end_guesses(matching_account).await;
        Ok(result?.unsigned)
    }

    /// The tenant that the metadata or the slug names.
    async fn tenant_to_sign_in(
        &self,
        metadata: &NamedTenant,
        slug: &str,
        origin: &Origin,
    ) -> Result<NamedTenant> {
        let by_slug = matches!(metadata, NamedTenant::Absent) && !slug.is_empty();
        if let Some(tenant) = self.seen.tenant(slug).filter(|_| by_slug) {
            // A call that is refused because of load must not cause a query.
            self.hasher.room(Owner::new(tenant, origin.ip))?;
        }
        let tenant = named_tenant::tenant(&self.db, metadata, slug).await?;
        if by_slug {
            self.seen.remember(slug, tenant.known());
        }
        Ok(tenant)
    }

    /// Opens a session for the first account that the password matches.
    async fn open(
        &self,
        slot: &mut QueueSlot,
        accounts: &mut Accounts,
        attempt: Attempt<'_>,
    ) -> Result<OpenedSession> {
        for _ in 0..MAX_ROUNDS {
            let Some(matched) = self.compare(slot, accounts, attempt).await? else { break };
            if attempt.waiting.is_over() {
                // The client cancelled the call, so nobody would receive the tokens. The
                // attempt is recorded as a failure.
                self.record_failure(accounts, attempt).await?;
                return Err(Error::refused(
                    ErrorReason::Cancelled,
                    "the client cancelled the call",
                ));
            }
            let account = matched.account;
            if let Some(unsigned) = self.open_matched(slot, matched, attempt).await? {
                return Ok(OpenedSession { account, unsigned });
            }
        }
        self.record_failure(accounts, attempt).await?;
        Err(invalid_credentials())
    }

    /// Compares the password with the hash of each account, also after a match, so that the
    /// time does not show which account matches. The look-up and the comparison always count
    /// against the limits of this sign-in, not against those of the tenant that is tried.
    async fn compare(
        &self,
        slot: &mut QueueSlot,
        accounts: &mut Accounts,
        attempt: Attempt<'_>,
    ) -> Result<Option<MatchedAccount>> {
        let mut first_match = None;
        for (number, account) in accounts.all.iter_mut().enumerate() {
            let tenant = account.tenant.unwrap_or(TenantId::UNKNOWN);
            let candidate =
                password::candidate(&self.db, attempt.share, tenant, attempt.email_key).await?;
            account.user = candidate.as_ref().map(|candidate| candidate.user);
            let active = candidate.filter(|candidate| candidate.active);
            let (user, stored_hash) = active.map(|c| (c.user, c.password_hash)).unzip();
            let stored_hash = stored_hash.flatten();
            // The comparison runs in the queue of the slot's owner. In the queue of the other
            // tenant, the waiting time would show that this tenant has the email.
            let outcome = slot.verify(tenant, attempt.password, stored_hash.as_deref()).await?;
            if let (None, Some(user), Some(hash), true) =
                (&first_match, user, stored_hash, outcome != Outcome::Wrong)
            {
                first_match = Some(MatchedAccount { account: number, tenant, user, outcome, hash });
            }
        }
        Ok(first_match)
    }

    /// Opens a session for an account that the password matched. `None` when the hash, the user
    /// or the tenant has changed since the comparison.
    async fn open_matched(
        &self,
        slot: &mut QueueSlot,
        matched: MatchedAccount,
        attempt: Attempt<'_>,
    ) -> Result<Option<Unsigned>> {
        let (tenant, user) = (matched.tenant, matched.user);
        let new_hash = match matched.outcome {
            Outcome::RightButOutdated => Some(slot.hash(attempt.password.normalised()).await?),
            _ => None,
        };
        let session = SessionId::new();
        // The session is cached because its first use follows soon. Look up the cache before
        // opening the session: if the session is ended in between, the ticket becomes invalid
        // and nothing is cached.
        let lookup = self.cache.lookup(tenant, session, user).await;
        let opening = Opening {
            tenant,
            user,
            session,
            proof: Proof::Password { verified_hash: &matched.hash, new_hash: new_hash.as_deref() },
            device_name: attempt.device_name,
            origin: attempt.origin,
        };
        let unsigned = open::open(&self.db, &self.keyring, self.lifetimes, opening).await?;
        if let (Some(unsigned), Lookup::Unknown(ticket)) = (&unsigned, lookup) {
            let lifetime = unsigned.access_expires_at - unsigned.issued_at;
            self.cache.fill(ticket, lifetime.whole_seconds()).await;
        }
        Ok(unsigned)
    }

    /// Records the failure in each tenant that was tried, or outside any tenant when none was
    /// tried. The audit event is written in its own transaction, so it survives when the sign-in
    /// rolls back.
    async fn record_failure(&self, accounts: &Accounts, attempt: Attempt<'_>) -> Result<()> {
        let mut tried_accounts: Vec<_> =
            accounts.all.iter().filter_map(|a| Some((a.tenant?, a.user))).collect();
        if tried_accounts.is_empty() {
            tried_accounts.push((TenantId::UNKNOWN, None));
        }
        for (tenant, user) in tried_accounts {
            let mut event = Event::new(EventKind::SignInFailed);
            if let Some(user) = user {
                event = event.target(user.0);
            }
            let actor = Actor::anonymous(attempt.origin);
            audit::record_in_share(&self.db, attempt.share, tenant, &actor, event).await?;
        }
        Ok(())
    }
}

/// The inputs of one sign-in attempt.
#[derive(Clone, Copy)]
struct Attempt<'a> {
    /// The tenant whose limits this sign-in counts against.
    share: TenantId,
    email_key: &'a str,
    password: &'a Presented,
    device_name: &'a str,
    origin: &'a Origin,
    waiting: &'a Waiting,
}

/// The account and the hash that the password matched.
struct MatchedAccount {
    /// The index of the account in [`Accounts::all`].
    account: usize,
    tenant: TenantId,
    user: UserId,
    outcome: Outcome,
    hash: String,
}

/// A new session, whose tokens are not signed yet.
struct OpenedSession {
    /// The index of the account in [`Accounts::all`].
    account: usize,
    unsigned: Unsigned,
}
