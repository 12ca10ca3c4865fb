//! `ExchangeApiKey`: a service account signs in, by a secret, an assertion (RFC 7523) or
//! the client certificate of its connection (RFC 8705).
//!
//! A certificate signs nobody in by itself: a gateway that passes on a call without
//! its user's token must not act in its own name.
//!
//! Rule: `role_names` (`migrations/0015_decide_permissions.sql`) decides which roles an access
//! token names. It leaves out those whose scope is not readable (`scope_is_readable`).

use super::SignIns;
use crate::{
    audit::{self, Actor, Event, EventKind, Origin},
    clock,
    credentials::api_keys::{
        ClientNames, Secret,
        store::{self, LiveKey},
    },
    credentials::invalid_credentials,
    db::TenantTx,
    error::{Error, Result},
    gate::NamedTenant,
    ids::{ApiKeyId, SessionId, TenantId, UserId},
    limits::RateClass,
    proto::v1::{ErrorReason, ExchangeApiKeyRequest, exchange_api_key_request::Credential},
    sessions::open,
    tenants,
    tokens::{AssertionKey, SubjectType, Token, TokenContent, TokenKind, new_jti},
};

/// What a service account proves itself with.
enum Proof {
    Secret(Vec<u8>),
    Assertion(String),
    Certificate(ClientNames),
}

/// What a service account presents, and where.
struct Presented {
    tenant: TenantId,
    /// What it counts for: another than the tenant where that does not exist.
    counted: TenantId,
    proof: Proof,
}

impl SignIns {
    pub async fn exchange_api_key(
        &self,
        named: &NamedTenant,
        origin: &Origin,
        request: ExchangeApiKeyRequest,
        certificate: Option<ClientNames>,
    ) -> Result<Token> {
        let meant = UserId::parse_optional("service_account_id", &request.service_account_id)?;
        self.keyring.check_available()?;
        let Presented { tenant, counted, proof } =
            self.presented(named, request.credential, certificate)?;
        self.limits.network(RateClass::ApiKey, origin.ip).await?;
        self.limits.tenant(RateClass::ApiKey, counted).await?;
        let mut tx = self.db.begin_in_share(counted, tenant).await?;
        let Some(key) = self.prove(&mut tx, tenant, &proof, meant).await? else {
            // What was tried is undone; that it was, is not.
            drop(tx);
            let event = Event::new(EventKind::SignInFailed).detail("by", "api_key");
            let actor = Actor::anonymous(origin);
            audit::record_in_share(&self.db, counted, tenant, &actor, event).await?;
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
        audit::record(&mut tx, tenant, &actor, event).await?;
        let roles = role_names(&mut tx, tenant, account).await?;
        tx.commit().await?;

        let issued_at = clock::now();
        let life = open::span(self.lifetimes.access)?;
        let content = TokenContent {
            user: account,
            subject_type: SubjectType::ServiceAccount,
            tenant,
            session,
            roles,
            jti: new_jti(),
            issued_at,
            expires_at: key.expires_at.min(issued_at + life),
        };
        self.sign_access(content).await
    }

    /// What was presented, and in which tenant. A secret says itself which; the metadata
    /// may repeat it. What is malformed costs nothing, and so counts for nothing.
    fn presented(
        &self,
        named: &NamedTenant,
        credential: Option<Credential>,
        certificate: Option<ClientNames>,
    ) -> Result<Presented> {
        let proof = match credential {
            Some(Credential::ApiKey(text)) => return presented_secret(named, &text),
            Some(Credential::ClientAssertion(jwt)) => Proof::Assertion(jwt),
            None => Proof::Certificate(certificate.ok_or_else(|| {
                Error::field("api_key", "must be set, or client_assertion, or bring a certificate")
            })?),
        };
        match named {
            NamedTenant::Known(tenant) => {
                Ok(Presented { tenant: tenant.id, counted: tenant.id, proof })
            }
            // As if it had no such account.
            NamedTenant::Unknown(name) => {
                let counted = self.limits.placeholder_tenant(name);
                Ok(Presented { tenant: TenantId::UNKNOWN, counted, proof })
            }
            NamedTenant::Absent => Err(Error::refused(
                ErrorReason::TenantRequired,
                "name the tenant: x-tenant-id or x-organization-slug",
            )),
        }
    }

    /// The key in force that the proof is of, of the account that is meant where one is
    /// named, its tenant active. That it is used, and what the proof is used up by, is
    /// written.
    async fn prove(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        proof: &Proof,
        meant: Option<UserId>,
    ) -> Result<Option<LiveKey>> {
        let key = match proof {
            Proof::Secret(hash) => store::by_secret(tx, tenant, hash).await?,
            Proof::Assertion(jwt) => self.assert(tx, tenant, jwt).await?,
            Proof::Certificate(names) => {
                store::by_certificate(tx, tenant, names.all(), meant).await?
            }
        };
        let is_meant = |key: &LiveKey| meant.is_none_or(|meant| meant == key.account_id);
        let Some(key) = key.filter(is_meant) else { return Ok(None) };
        store::record_use(tx, tenant, key.key_id).await?;
        // Last, for what is before it may have waited for others.
        let is_active = tenants::store::get(tx, tenant).await?.is_active();
        Ok(Some(key).filter(|_| is_active))
    }

    async fn assert(
        &self,
        tx: &mut TenantTx,
        tenant: TenantId,
        jwt: &str,
    ) -> Result<Option<LiveKey>> {
        let Some(id) = AssertionKey::named_in(jwt).map(ApiKeyId) else { return Ok(None) };
        let Some(key) = store::by_id(tx, tenant, id).await? else { return Ok(None) };
        let account = key.account_id.to_string();
        let verifies = AssertionKey::read(&key.public_key, &account, self.keyring.issuer())
            .map_err(|_| Error::defect("a kept public key can't be read"))?;
        let Some(assertion) = verifies.verify(jwt) else { return Ok(None) };
        let first = store::mark_used(tx, tenant, id, &assertion.jti, assertion.ends_at).await?;
        Ok(Some(key).filter(|_| first))
    }

    async fn sign_access(&self, content: TokenContent) -> Result<Token> {
        let keyring = self.keyring.clone();
        let sign = move || {
            let kid = keyring.kid(TokenKind::Access);
            keyring.sign(TokenKind::Access, &kid, content)
        };
        tokio::task::spawn_blocking(sign)
            .await
            .map_err(|_| Error::defect("a signing thread died"))?
    }
}

fn presented_secret(named: &NamedTenant, text: &str) -> Result<Presented> {
    let Secret { tenant, hash } = Secret::read(text).ok_or_else(invalid_credentials)?;
    if named.is_other_than(tenant) {
        return Err(invalid_credentials());
    }
    Ok(Presented { tenant, counted: tenant, proof: Proof::Secret(hash) })
}

async fn role_names(tx: &mut TenantTx, tenant: TenantId, account: UserId) -> Result<Vec<String>> {
    let names =
        sqlx::query_scalar!(r#"select role_names($1, $2) as "names!""#, tenant.0, account.0)
            .fetch_one(tx.conn())
            .await?;
    Ok(names)
}
