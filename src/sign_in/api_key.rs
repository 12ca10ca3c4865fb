//! `ExchangeApiKey`: a service account signs in with a secret, an assertion (RFC 7523) or the
//! client certificate of its connection (RFC 8705).
//!
//! A certificate alone does not authenticate any other call. Otherwise a gateway that forwards a
//! user's call without the user's token would act as the gateway's service account.
//!
//! Rule: `role_names` (`migrations/0015_decide_permissions.sql`) decides which names of roles an
//! access token contains. The function omits the roles whose scope is not readable
//! (`scope_is_readable`).

use super::{SignIns, named_tenant};
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    clock,
    credentials::{
        api_keys::{
            ClientNames, Secret,
            store::{self, LiveKey},
        },
        invalid_credentials,
    },
    db::TenantTx,
    error::{Error, Result},
    gate::NamedTenant,
    ids::{ApiKeyId, SessionId, SubjectId, TenantId},
    limits::RateClass,
    proto::v1::{ErrorReason, ExchangeApiKeyRequest, exchange_api_key_request::Credential},
    sessions::open,
    tenants,
    tokens::{AssertionKey, SubjectType, Token, TokenContent, TokenKind, new_jti},
};

/// The credential of a service account.
enum AccountCredential {
    Secret(Vec<u8>),
    Assertion(String),
    Certificate(ClientNames),
}

/// A credential, and the tenant in which it is verified.
struct PresentedCredential {
    /// [`TenantId::UNKNOWN`] when the named tenant does not exist.
    tenant: TenantId,
    /// The tenant whose limits the call counts against: a placeholder when the named tenant does
    /// not exist.
    charged_tenant: TenantId,
    credential: AccountCredential,
}

impl SignIns {
    pub async fn exchange_api_key(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        request: ExchangeApiKeyRequest,
        certificate: Option<ClientNames>,
    ) -> Result<Token> {
        let requested_account =
            SubjectId::parse_optional("service_account_id", &request.service_account_id)?;
        self.keyring.check_available()?;
        let PresentedCredential { tenant, charged_tenant, credential } =
            self.presented_credential(named, request.credential, certificate)?;
        self.limits.count_for_network(RateClass::ApiKey, origin.ip).await?;
        let (tenant, charged_tenant) = if tenant == TenantId::UNKNOWN {
            (tenant, charged_tenant)
        } else {
            // Check that the tenant exists: a secret may contain the id of any tenant.
            let (db, limits) = (&self.db, &self.limits);
            named_tenant::tenant_and_charged_tenant(db, limits, tenant, origin.ip).await?
        };
        self.limits.count_for_tenant(RateClass::ApiKey, charged_tenant).await?;
        let mut tx = self.db.begin_in_share(charged_tenant, tenant).await?;
        let Some(key) =
            self.verify_credential(&mut tx, tenant, &credential, requested_account).await?
        else {
            // The failed attempt is recorded in another transaction.
            drop(tx);
            let event = Event::new(EventKind::SignInFailed).detail("by", "api_key");
            let actor = Actor::anonymous(origin);
            audit::record_in_own_transaction_charged_to(
                &self.db,
                charged_tenant,
                tenant,
                &actor,
                event,
            )
            .await?;
            return Err(invalid_credentials());
        };
        let (account, session) = (key.account_id, SessionId(key.key_id.0));
        let actor = Actor {
            tenant: Some(tenant),
            user: Some(account),
            session: Some(session),
            origin: origin.clone(),
        };
        let event = Event::new(EventKind::SignedIn).target(account.0).detail("by", "api_key");
        audit::record(&mut tx, &actor, event).await?;
        let roles = role_names(&mut tx, tenant, account).await?;
        tx.commit().await?;

        let issued_at = clock::now();
        let lifetime = open::to_time_duration(self.lifetimes.access)?;
        let content = TokenContent {
            user: account,
            subject_type: SubjectType::ServiceAccount,
            tenant,
            session,
            roles,
            jti: new_jti(),
            issued_at,
            expires_at: key.expires_at.min(issued_at + lifetime),
        };
        self.sign_access(content).await
    }

    /// The presented credential and its tenant. A secret contains its tenant; the metadata must
    /// name the same tenant or none. A malformed secret causes no query, so it counts against no
    /// limit.
    fn presented_credential(
        &self,
        named: &NamedTenant,
        credential: Option<Credential>,
        certificate: Option<ClientNames>,
    ) -> Result<PresentedCredential> {
        let credential = match credential {
            Some(Credential::ApiKey(text)) => return presented_secret(named, &text),
            Some(Credential::ClientAssertion(jwt)) => AccountCredential::Assertion(jwt),
            None => AccountCredential::Certificate(certificate.ok_or_else(|| {
                let text = "set api_key or client_assertion, or connect with a client certificate";
                Error::field("api_key", text)
            })?),
        };
        match named {
            NamedTenant::Known(tenant) => {
                Ok(PresentedCredential { tenant: tenant.id, charged_tenant: tenant.id, credential })
            }
            // An unknown tenant gives the same response as a tenant without the account.
            NamedTenant::Unknown(name) => {
                let charged_tenant = self.limits.placeholder_tenant(name);
                Ok(PresentedCredential { tenant: TenantId::UNKNOWN, charged_tenant, credential })
            }
            NamedTenant::Absent => Err(Error::refused(
                ErrorReason::TenantRequired,
                "name the tenant in x-tenant-id or x-organization-slug",
            )),
        }
    }

    /// Verifies the credential. Returns its valid API key if the tenant is active, and if the key
    /// belongs to `requested_account` (`None` allows any account). Records the use of the key, and
    /// marks an assertion as used.
    async fn verify_credential(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        credential: &AccountCredential,
        requested_account: Option<SubjectId>,
    ) -> Result<Option<LiveKey>> {
        let key = match credential {
            AccountCredential::Secret(hash) => store::by_secret(tx, tenant, hash).await?,
            AccountCredential::Assertion(jwt) => self.verify_assertion(tx, tenant, jwt).await?,
            AccountCredential::Certificate(names) => {
                store::by_certificate(tx, tenant, names.all(), requested_account).await?
            }
        };
        let matches_account =
            |key: &LiveKey| requested_account.is_none_or(|id| id == key.account_id);
        let Some(key) = key.filter(matches_account) else { return Ok(None) };
        store::record_use(tx, tenant, key.key_id).await?;
        // Read the state of the tenant last, because the earlier statements may wait for locks.
        let is_active = tenants::store::get(tx, tenant).await?.is_active();
        Ok(Some(key).filter(|_| is_active))
    }

    async fn verify_assertion(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        jwt: &str,
    ) -> Result<Option<LiveKey>> {
        let Some(id) = AssertionKey::unverified_key_id(jwt).map(ApiKeyId) else { return Ok(None) };
        let Some(key) = store::by_id(tx, tenant, id).await? else { return Ok(None) };
        let account = key.account_id.to_string();
        let public_key = AssertionKey::read(&key.public_key, &account, self.keyring.issuer())
            .map_err(|_| Error::defect("a stored public key can't be read"))?;
        let Some(assertion) = public_key.verify(jwt) else { return Ok(None) };
        let is_first_use =
            store::mark_used(tx, tenant, id, &assertion.jti, assertion.ends_at).await?;
        Ok(Some(key).filter(|_| is_first_use))
    }

    async fn sign_access(&self, content: TokenContent) -> Result<Token> {
        let keyring = self.keyring.clone();
        let sign = move || {
            let kid = keyring.kid(TokenKind::Access);
            keyring.sign(TokenKind::Access, &kid, content)
        };
        tokio::task::spawn_blocking(sign)
            .await
            .map_err(|_| Error::defect("a signing thread panicked"))?
    }
}

fn presented_secret(named: &NamedTenant, text: &str) -> Result<PresentedCredential> {
    let Secret { tenant, hash } = Secret::parse(text).ok_or_else(invalid_credentials)?;
    if named.is_other_than(tenant) {
        return Err(invalid_credentials());
    }
    Ok(PresentedCredential {
        tenant,
        charged_tenant: tenant,
        credential: AccountCredential::Secret(hash),
    })
}

async fn role_names(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: SubjectId,
) -> Result<Vec<String>> {
    let names =
        sqlx::query_scalar!(r#"select role_names($1, $2) as "names!""#, tenant.0, account.0)
            .fetch_one(tx.conn())
            .await?;
    Ok(names)
}
