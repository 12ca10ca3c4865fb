//! The accounts that a sign-in tries, and the limits on password guesses at these accounts.

use super::{SignIns, named_tenant};
use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::NamedTenant,
    ids::{TenantId, UserId},
    limits::{Guess, RateClass},
    tenants,
};

/// Number of comparisons of a sign-in without a tenant, whatever the number of accounts with the
/// email.
const CANDIDATES: u32 = 3;

/// The accounts that a password is compared with. The first match is used.
pub(super) struct Accounts {
    pub(super) all: Vec<Account>,
    /// The guess at the named account; if no tenant is named, the guess at the email.
    guess: Guess,
}

/// A possible account. It may not exist.
#[derive(Default)]
pub(super) struct Account {
    /// The tenant. `None` when there is no tenant to try: then the password is compared with a
    /// dummy hash.
    pub(super) tenant: Option<TenantId>,
    /// The tenant's user with the email; `None` before the look-up and when there is none.
    pub(super) user: Option<UserId>,
    /// The guess at this account, if the sign-in did not name its tenant.
    guess: Option<Guess>,
}

impl SignIns {
    /// The accounts that a sign-in tries. Counts the sign-in against the limits of `share`.
    ///
    /// # Errors
    /// `RATE_LIMITED` after too many guesses at the account or the email, or too many sign-ins in
    /// the tenant; `TENANT_REQUIRED` when the sign-in names no tenant and the server requires one.
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

    /// An account in a tenant that the sign-in did not name. If a limit forbids a direct sign-in
    /// at this account, it is not tried here either. The response must not show this. The guess
    /// must not show in sign-ins that name the tenant either. Otherwise an attacker could learn
    /// which tenants have a user with the email.
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

/// Number of accounts that a sign-in with this named tenant is compared with.
pub(super) fn count(named: &NamedTenant) -> u32 {
    if matches!(named, NamedTenant::Absent) { CANDIDATES } else { 1 }
}

impl Accounts {
    /// Ends the guesses. `matching_account` is the index of the account that the password
    /// matched. The guesses at earlier accounts were wrong. The guesses at later accounts are
    /// abandoned, because the caller learns nothing about these accounts.
    pub(super) async fn end_guesses(self, matching_account: Result<usize, &Error>) {
        for (number, account) in self.all.into_iter().enumerate() {
            let Some(guess) = account.guess else { continue };
            match matching_account {
                Ok(index) if index == number => guess.right().await,
                Ok(index) if index < number => guess.abandoned().await,
                Ok(_) => guess.wrong().await,
                Err(error) => guess.end(Some(error)).await,
            }
        }
        self.guess.end(matching_account.err()).await;
    }
}
