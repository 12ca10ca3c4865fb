//! Login: opens a session for a correct password.
//!
//! All failures give the same response after the same time ([`super::FailureTiming`]): an unknown
//! or suspended tenant, an unknown or disabled user, a user without a password, and a wrong
//! password, also with a hash imported from another system.
//!
//! If the client names no tenant, at most three tenants that have a user with the email are
//! tried. There are always three comparisons, whatever the number of accounts, and also after
//! a match. If the password matches several accounts, the first of them is used: accounts with a
//! verified address come first, then older accounts.

use std::sync::Arc;

use super::{
    SignIns,
    attempt::{Cancellation, run_to_end},
    candidates::{self, Accounts},
    failure_timing::SignInAttempt,
    named_tenant,
};
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    credentials::{invalid_credentials, password},
    email,
    error::{Error, Result},
    gate::NamedTenant,
    ids::{SessionId, SubjectId, TenantId},
    limits::WorkOwner,
    passwords::{Comparison, PresentedPassword, QueueSlot},
    proto::v1::{ErrorReason, LoginRequest},
    sessions::{
        Lookup,
        open::{self, NewSession, Proof, UnsignedTokens},
    },
    tokens::TokenPair,
};

/// Maximum rounds of comparison. The second round is needed if a concurrent sign-in replaced
/// the hash.
const MAX_ROUNDS: usize = 2;

impl SignIns {
    pub async fn login(
        &self,
        sign_in: &Arc<SignInAttempt>,
        named: &NamedTenant,
        origin: &Origin,
        message: LoginRequest,
    ) -> Result<TokenPair> {
        self.keyring.check_available()?;
        let (sign_ins, named, origin) = (self.clone(), named.clone(), origin.clone());
        let sign_in = sign_in.clone();
        let unsigned_tokens = run_to_end(|cancellation| async move {
            Box::pin(sign_ins.attempt_sign_in(&sign_in, &named, &origin, &message, &cancellation))
                .await
        });
        unsigned_tokens.await?.sign(self.keyring.clone()).await
    }

    async fn attempt_sign_in(
        &self,
        sign_in: &SignInAttempt,
        named: &NamedTenant,
        origin: &Origin,
        message: &LoginRequest,
        cancellation: &Cancellation,
    ) -> Result<UnsignedTokens> {
        let normalized_email = email::normalized(&message.email);
        let slug = &message.organization_slug;
        let resolved_tenant = self.resolve_tenant(named, slug, origin).await?;
        let charged_tenant =
            named_tenant::charged_tenant(&self.limits, &resolved_tenant, origin.ip);
        let owner = WorkOwner::new(charged_tenant, origin.ip);
        let password = &PresentedPassword::new(&message.password);
        sign_in.reserve(owner, password, candidates::account_count(&resolved_tenant))?;
        let mut slot = self.hasher.take_slot(owner)?;
        let mut accounts =
            self.find_accounts(&resolved_tenant, charged_tenant, &normalized_email, origin).await?;
        let input = AttemptInput {
            charged_tenant,
            normalized_email: &normalized_email,
            password,
            device_name: &message.device_name,
            origin,
            cancellation,
        };
        let result = self.compare_and_open(&mut slot, &mut accounts, input).await;
        drop(slot);
        let matching_index = result.as_ref().map(|session| session.account_index);
        Box::pin(accounts.end_guesses(matching_index)).await;
        Ok(result?.unsigned_tokens)
    }

    /// The tenant that the metadata or the slug names. Caches the tenant of the slug.
    async fn resolve_tenant(
        &self,
        named: &NamedTenant,
        slug: &str,
        origin: &Origin,
    ) -> Result<NamedTenant> {
        let is_named_by_slug = matches!(named, NamedTenant::Absent) && !slug.is_empty();
        if let Some(tenant) = self.slug_cache.get(slug).filter(|_| is_named_by_slug) {
            // A call that is refused because the queue is full must not cause a query.
            self.hasher.check_slot(WorkOwner::new(tenant, origin.ip))?;
        }
        let resolved_tenant =
            named_tenant::resolve_tenant(&self.db, &self.limits, named, slug, origin.ip).await?;
        if is_named_by_slug {
            self.slug_cache.update(slug, resolved_tenant.known());
        }
        Ok(resolved_tenant)
    }

    /// Compares the password, and opens a session for the first account that it matches.
    async fn compare_and_open(
        &self,
        slot: &mut QueueSlot,
        accounts: &mut Accounts,
        input: AttemptInput<'_>,
    ) -> Result<OpenedSession> {
        for _ in 0..MAX_ROUNDS {
            let Some(matched_account) = self.compare(slot, accounts, input).await? else { break };
            if input.cancellation.is_cancelled() {
                // Nobody would receive the tokens. The attempt is recorded as a failure.
                self.record_failure(accounts, input).await?;
                return Err(Error::refused(
                    ErrorReason::Cancelled,
                    "the client cancelled the call",
                ));
            }
            let account_index = matched_account.account_index;
            if let Some(unsigned_tokens) = self.open_matched(slot, matched_account, input).await? {
                return Ok(OpenedSession { account_index, unsigned_tokens });
            }
        }
        self.record_failure(accounts, input).await?;
        Err(invalid_credentials())
    }

    /// Compares the password with the hash of each account, also after a match, so that the
    /// time does not show which account matches. The look-up and the comparison always count
    /// against the limits of `charged_tenant`, not against the limits of the tenant that is tried.
    async fn compare(
        &self,
        slot: &mut QueueSlot,
        accounts: &mut Accounts,
        input: AttemptInput<'_>,
    ) -> Result<Option<MatchedAccount>> {
        let mut first_match = None;
        for (account_index, account) in accounts.candidates.iter_mut().enumerate() {
            let tenant = account.tenant.unwrap_or(TenantId::UNKNOWN);
            let candidate = password::find_candidate(
                &self.db,
                input.charged_tenant,
                tenant,
                input.normalized_email,
            )
            .await?;
            account.user = candidate.as_ref().map(|candidate| candidate.user);
            let active_candidate = candidate.filter(|candidate| candidate.active);
            let (user, stored_hash) = active_candidate.map(|c| (c.user, c.password_hash)).unzip();
            let stored_hash = stored_hash.flatten();
            // The comparison waits in the queue of the slot's owner. In the queue of `tenant`, the
            // waiting time would show that `tenant` has a user with the email.
            let comparison = slot.verify(tenant, input.password, stored_hash.as_deref()).await?;
            if let (None, Some(user), Some(hash), true) =
                (&first_match, user, stored_hash, comparison != Comparison::Mismatch)
            {
                first_match =
                    Some(MatchedAccount { account_index, tenant, user, comparison, hash });
            }
        }
        Ok(first_match)
    }

    /// Opens a session for an account that the password matched. `None` when the hash, the user
    /// or the tenant has changed since the comparison.
    async fn open_matched(
        &self,
        slot: &mut QueueSlot,
        matched_account: MatchedAccount,
        input: AttemptInput<'_>,
    ) -> Result<Option<UnsignedTokens>> {
        let (tenant, user) = (matched_account.tenant, matched_account.user);
        let new_hash = match matched_account.comparison {
            Comparison::OutdatedMatch => Some(slot.hash(input.password.normalised()).await?),
            _ => None,
        };
        let session = SessionId::new();
        // The session is cached because its first use follows soon. Look up the cache before
        // opening the session: if a concurrent change ends the session, the ticket becomes invalid
        // and nothing is cached.
        let lookup = self.session_cache.lookup(tenant, session, user).await;
        let new_session = NewSession {
            tenant,
            user,
            session,
            proof: Proof::Password {
                verified_hash: &matched_account.hash,
                new_hash: new_hash.as_deref(),
            },
            device_name: input.device_name,
            origin: input.origin,
        };
        let unsigned_tokens =
            open::open(&self.db, &self.keyring, self.lifetimes, new_session).await?;
        if let (Some(unsigned_tokens), Lookup::Unknown(ticket)) = (&unsigned_tokens, lookup) {
            let lifetime = unsigned_tokens.access_expires_at - unsigned_tokens.issued_at;
            self.session_cache.fill(ticket, lifetime.whole_seconds()).await;
        }
        Ok(unsigned_tokens)
    }

    /// Records the failure in each tenant that was tried, or in no tenant when none was tried. Each
    /// event is written in its own transaction.
    async fn record_failure(&self, accounts: &Accounts, input: AttemptInput<'_>) -> Result<()> {
        let mut tried_accounts: Vec<_> =
            accounts.candidates.iter().filter_map(|a| Some((a.tenant?, a.user))).collect();
        if tried_accounts.is_empty() {
            tried_accounts.push((TenantId::UNKNOWN, None));
        }
        for (tenant, user) in tried_accounts {
            let mut event = Event::new(EventKind::SignInFailed);
            if let Some(user) = user {
                event = event.target(user.0);
            }
            let actor = Actor::anonymous(input.origin);
            audit::record_in_own_transaction_charged_to(
                &self.db,
                input.charged_tenant,
                tenant,
                &actor,
                event,
            )
            .await?;
        }
        Ok(())
    }
}

/// The inputs of one sign-in attempt.
#[derive(Clone, Copy)]
struct AttemptInput<'a> {
    /// The tenant whose limits this sign-in counts against.
    charged_tenant: TenantId,
    normalized_email: &'a str,
    password: &'a PresentedPassword,
    device_name: &'a str,
    origin: &'a Origin,
    cancellation: &'a Cancellation,
}

/// The account and the hash that the password matched.
struct MatchedAccount {
    /// The index of the account in [`Accounts::candidates`].
    account_index: usize,
    tenant: TenantId,
    user: SubjectId,
    comparison: Comparison,
    hash: String,
}

/// A new session, whose tokens are not signed yet.
struct OpenedSession {
    /// The index of the account in [`Accounts::candidates`].
    account_index: usize,
    unsigned_tokens: UnsignedTokens,
}
