//! The accounts that a sign-in is for, and the guesses that it is at them.

use super::{SignIns, named_tenant};
use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::NamedTenant,
    ids::{TenantId, UserId},
    limits::{Guess, RateClass},
    tenants,
};

/// How many accounts a sign-in without a tenant is compared with, whether or not there
/// are as many.
const CANDIDATES: u32 = 3;

/// The accounts that a password is compared with, in the order in which they count.
pub(super) struct Accounts {
    pub(super) all: Vec<Account>,
    /// At the account that was named; without a tenant, at the email.
    guess: Guess,
}

/// An account that there may be.
#[derive(Default)]
pub(super) struct Account {
    /// The tenant; `None` where none is meant or exists: the comparison is with nothing.
    pub(super) tenant: Option<TenantId>,
    /// The tenant's user with the email, once it was looked up.
    pub(super) user: Option<UserId>,
    /// At this account, where it was not named.
    guess: Option<Guess>,
}

impl SignIns {
    /// The accounts that a sign-in is for, counted for its share.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the account or the email was guessed at too often, or the
    /// tenant; `TENANT_REQUIRED` without a tenant where the server wants one.
    pub(super) async fn accounts(
        &self,
        tenant: &NamedTenant,
        share: TenantId,
        email_key: &str,
        origin: &Origin,
    ) -> Result<Accounts> {
        if matches!(tenant, NamedTenant::Absent) {
            return self.accounts_by_email(email_key, origin).await;
        }
        self.limits.tenant(RateClass::SignIn, share).await?;
        let guess = self.limits.guess(share, email_key, origin.ip).await?;
        let tenant = tenant.known().map(|tenant| tenant.id);
        Ok(Accounts { all: vec![Account { tenant, ..Account::default() }], guess })
    }

    async fn accounts_by_email(&self, email_key: &str, origin: &Origin) -> Result<Accounts> {
        let only_verified = named_tenant::only_verified(self.tenantless)?;
        let guess = self.limits.guess(TenantId::UNKNOWN, email_key, origin.ip).await?;
        let mut all = Vec::new();
        for tenant in tenants::find_by_email(&self.db, email_key, only_verified).await? {
            all.push(self.candidate_without_tenant(tenant, email_key, origin).await);
        }
        for _ in all.len()..CANDIDATES as usize {
            all.push(Account::default());
        }
        Ok(Accounts { all, guess })
    }

    /// An account that was not named. One that nobody may try directly now is not tried
    /// so either, and that must not show, nor may the guess show to those who name the
    /// tenant: it would tell whoever asks where the email is known.
    async fn candidate_without_tenant(
        &self,
        tenant: TenantId,
        email_key: &str,
        origin: &Origin,
    ) -> Account {
        if self.limits.tenant_without_name(RateClass::SignIn, tenant).await.is_err() {
            return Account::default();
        }
        match self.limits.guess_without_tenant(tenant, email_key, origin.ip).await {
            Ok(guess) => Account { tenant: Some(tenant), guess: Some(guess), user: None },
            Err(_) => Account::default(),
        }
    }
}

/// How many accounts a sign-in that names this tenant is compared with.
pub(super) fn count(named: &NamedTenant) -> u32 {
    if matches!(named, NamedTenant::Absent) { CANDIDATES } else { 1 }
}

impl Accounts {
    /// Ends the guesses by which account the password was right for. Of those after it
    /// nobody has learnt anything; that those before it are others' is learnt.
    pub(super) async fn end_guesses(self, right: Result<usize, &Error>) {
        for (number, account) in self.all.into_iter().enumerate() {
            let Some(guess) = account.guess else { continue };
            match right {
                Ok(right) if right == number => guess.right().await,
                Ok(right) if right < number => guess.abandoned().await,
                Ok(_) => guess.wrong().await,
                Err(error) => guess.end(Some(error)).await,
            }
        }
        self.guess.end(right.err()).await;
    }
}
