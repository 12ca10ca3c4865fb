//! The accounts that a sign-in tries, and the limits on password guesses at these accounts.

use super::{SignIns, named_tenant};
use crate::{
    audit::Origin,
    error::{Error, Result},
    gate::NamedTenant,
    ids::{SubjectId, TenantId},
    limits::{Guess, RateClass},
    tenants,
};

/// Number of comparisons of a sign-in that names no tenant, whatever the number of accounts with
/// the email.
const CANDIDATES: u32 = 3;

/// The accounts that a password is compared with. The first match is used.
pub(super) struct Accounts {
    pub(super) candidates: Vec<Account>,
    /// The guess at the account in the named tenant; if no tenant is named, the guess at the email.
    guess: Guess,
}

/// A possible account. It may not exist.
#[derive(Default)]
pub(super) struct Account {
    /// The tenant to try. `None` when no tenant is left to try: then the password is compared with
    /// a dummy hash.
    pub(super) tenant: Option<TenantId>,
    /// The tenant's user with the email; `None` before the look-up and when there is none.
    pub(super) user: Option<SubjectId>,
    /// The guess at this account, if the sign-in names no tenant.
    guess: Option<Guess>,
}

impl SignIns {
    /// Finds the accounts that a sign-in tries, and counts the sign-in against the limits of
    /// `charged_tenant`.
    ///
    /// # Errors
    /// `RATE_LIMITED` after too many guesses at the account or the email, or too many sign-ins in
    /// the tenant; `TENANT_REQUIRED` when the sign-in names no tenant and the server requires one.
    pub(super) async fn find_accounts(
        &self,
        named: &NamedTenant,
        charged_tenant: TenantId,
        normalized_email: &str,
        origin: &Origin,
    ) -> Result<Accounts> {
        if matches!(named, NamedTenant::Absent) {
            return self.accounts_by_email(normalized_email, origin).await;
        }
        self.limits.count_for_tenant(RateClass::SignIn, charged_tenant).await?;
        let guess = self.limits.guess(charged_tenant, normalized_email, origin.ip).await?;
        let tenant = named.known().map(|tenant| tenant.id);
        Ok(Accounts { candidates: vec![Account { tenant, ..Account::default() }], guess })
    }

    async fn accounts_by_email(&self, normalized_email: &str, origin: &Origin) -> Result<Accounts> {
        let only_verified_emails = named_tenant::only_verified_emails(self.tenantless_sign_in)?;
        let guess = self.limits.guess(TenantId::UNKNOWN, normalized_email, origin.ip).await?;
        let mut candidates = Vec::new();
        let charged_tenant = self.limits.placeholder_tenant_of_network(origin.ip);
        let tenants = tenants::find_by_email(
            &self.db,
            charged_tenant,
            normalized_email,
            only_verified_emails,
        );
        for tenant in tenants.await? {
            candidates.push(self.candidate_without_tenant(tenant, normalized_email, origin).await);
        }
        for _ in candidates.len()..CANDIDATES as usize {
            candidates.push(Account::default());
        }
        Ok(Accounts { candidates, guess })
    }

    /// An account in a tenant that the sign-in did not name. If a limit refuses the guess, the
    /// account is not tried, and the response does not show this. The guess must not affect
    /// sign-ins that name the tenant either. Otherwise an attacker could learn which tenants have a
    /// user with the email.
    async fn candidate_without_tenant(
        &self,
        tenant: TenantId,
        normalized_email: &str,
        origin: &Origin,
    ) -> Account {
        if self.limits.count_for_unnamed_tenant(RateClass::SignIn, tenant).await.is_err() {
            return Account::default();
        }
        match self.limits.guess_without_tenant(tenant, normalized_email, origin.ip).await {
            Ok(guess) => Account { tenant: Some(tenant), guess: Some(guess), user: None },
            Err(_) => Account::default(),
        }
    }
}

/// Number of accounts that a sign-in with this named tenant tries.
pub(super) fn account_count(named: &NamedTenant) -> u32 {
    if matches!(named, NamedTenant::Absent) { CANDIDATES } else { 1 }
}

impl Accounts {
    /// Ends the guesses. `matching_index` is the index of the account that the password matched.
    /// The guesses at earlier accounts count as failures. The guesses at later accounts do not
    /// count, because the client learns nothing about these accounts.
    pub(super) async fn end_guesses(self, matching_index: Result<usize, &Error>) {
        for (index, account) in self.candidates.into_iter().enumerate() {
            let Some(guess) = account.guess else { continue };
            match matching_index {
                Ok(matching_index) if index == matching_index => guess.record_success().await,
                Ok(matching_index) if index > matching_index => guess.release().await,
                Ok(_) => guess.record_failure().await,
                Err(error) => guess.end(Some(error)).await,
            }
        }
        self.guess.end(matching_index.err()).await;
    }
}
