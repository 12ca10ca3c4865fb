//! `CreateApiKey` and `RevokeApiKey`.

use prost_types::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime};

use super::{ServiceAccounts, store};
use crate::{
    api_keys::{
        self, Secret, certificate_name,
        store::{KeyRow, NewKey},
    },
    audit::{self, Event, EventKind},
    clock,
    db::TenantTx,
    error::{Error, Result},
    gate::{Caller, Reaching},
    idempotency::{self, Key},
    ids::{ApiKeyId, TenantId, UserId},
    proto::v1::{
        CreateApiKeyRequest, CreateApiKeyResponse, ErrorReason, create_api_key_request::Credential,
    },
    roles::guard,
    tokens::AssertionKey,
};

/// How long a key lives that was not given an end.
const LIFE: Duration = Duration::days(365);

/// So many keys of a kind may an account have in force: one, and the one that takes
/// over from it.
const OF_A_KIND: i64 = 2;

impl ServiceAccounts {
    pub(super) async fn create_key(
        &self,
        caller: &Caller,
        message: CreateApiKeyRequest,
    ) -> Result<CreateApiKeyResponse> {
        let tenant = caller.tenant();
        let account = UserId::parse("service_account_id", &message.service_account_id)?;
        let expires_at = end(message.expire_time.as_ref())?;
        let proof = Proof::of(tenant, message.credential.as_ref())?;
        let new = NewKey { name: &message.name, ..proof.new_key() };
        let key = Key {
            tenant,
            actor: Some(caller.user()),
            method: "CreateApiKey",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };

        let mut tx = self.db.begin(tenant).await?;
        store::lock(&mut tx, tenant, account).await?;
        guard::may_act_as(&mut tx, tenant, caller.standing(), account).await?;
        let first = idempotency::recall::<CreateApiKeyResponse>(&mut tx, &key).await?;
        let is_first = first.is_none();
        let (row, is_shown) = match first.and_then(|first| first.api_key) {
            Some(first) => again(&mut tx, tenant, &first.id, &new).await?,
            None => (insert(&mut tx, tenant, account, &new, expires_at).await?, true),
        };
        // A request that is repeated and gives nothing new is no event.
        if is_shown {
            let event = Event::new(EventKind::ApiKeyCreated).target(account.0);
            let event = event
                .detail("api_key_id", row.key_id.to_string())
                .detail("credential", proof.name())
                .maybe("secret_replaced", (!is_first).then_some(true))
                .detail("expire_time", clock::text(row.expires_at))
                .detail("name", row.name.as_str());
            audit::record(&mut tx, tenant, &caller.actor(), event).await?;
        }
        let made = row.key_id;
        let mut response = CreateApiKeyResponse {
            api_key: Some(row.into()),
            secret: String::new(),
            consistency_token: tx.consistency_token().await?,
        };
        if is_first {
            // Without the secret, which is kept nowhere.
            idempotency::remember(&mut tx, &key, made, &response).await?;
        }
        tx.commit().await?;
        if let Some(text) = proof.text().filter(|_| is_shown) {
            text.expose_secret().clone_into(&mut response.secret);
        }
        Ok(response)
    }

    /// The consistency token of the revocation.
    pub(super) async fn revoke_key(&self, reaching: &Reaching, key: ApiKeyId) -> Result<String> {
        let (caller, reach) = reaching.within();
        let tenant = caller.tenant();
        let owner = reach.owner();
        let mut tx = self.db.begin(tenant).await?;
        let account = api_keys::store::lock_owner(&mut tx, tenant, key, owner).await?;
        let account = account.ok_or_else(Error::not_found)?;
        if owner.is_none() {
            guard::user_within_level(&mut tx, tenant, caller.standing(), account).await?;
        }
        if !api_keys::store::revoke(&mut tx, tenant, key).await? {
            return tx.consistency_token().await;
        }
        let event = Event::new(EventKind::ApiKeyRevoked).target(account.0);
        self.finish_ending(tx, caller, event.detail("api_key_id", key.to_string())).await
    }
}

/// What a new key is to prove.
enum Proof {
    Secret(Secret, SecretString),
    PublicKey(String),
    Certificate(String),
}

impl Proof {
    fn of(tenant: TenantId, credential: Option<&Credential>) -> Result<Self> {
        match credential {
            None => Secret::new(tenant).map(|(secret, text)| Self::Secret(secret, text)),
            Some(Credential::PublicKey(pem)) => match AssertionKey::read(pem, "", "") {
                Ok(_) => Ok(Self::PublicKey(pem.clone())),
                Err(error) => Err(Error::field("public_key", format!("can't be used: {error}"))),
            },
            Some(Credential::CertificateName(name)) => {
                let wanted = || Error::field("certificate_name", "must be a DNS name or a URI");
                certificate_name(name).map(Self::Certificate).ok_or_else(wanted)
            }
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Secret(..) => "secret",
            Self::PublicKey(_) => "public_key",
            Self::Certificate(_) => "certificate",
        }
    }

    fn new_key(&self) -> NewKey<'_> {
        match self {
            Self::Secret(secret, _) => {
                NewKey { secret_hash: Some(secret.hash.clone()), ..NewKey::default() }
            }
            Self::PublicKey(pem) => NewKey { public_key: Some(pem), ..NewKey::default() },
            Self::Certificate(name) => NewKey { certificate_name: Some(name), ..NewKey::default() },
        }
    }

    fn text(&self) -> Option<&SecretString> {
        match self {
            Self::Secret(_, text) => Some(text),
            _ => None,
        }
    }
}

fn end(asked_for: Option<&Timestamp>) -> Result<OffsetDateTime> {
    let Some(asked_for) = asked_for else { return Ok(clock::now() + LIFE) };
    clock::in_the_future(asked_for)
        .ok_or_else(|| Error::field("expire_time", "must be a time in the future"))
}

async fn insert(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: UserId,
    new: &NewKey<'_>,
    expires_at: OffsetDateTime,
) -> Result<KeyRow> {
    api_keys::store::tidy(tx, tenant, account).await?;
    if api_keys::store::count_like(tx, tenant, account, new).await? >= OF_A_KIND {
        return Err(Error::refused(
            ErrorReason::TooManyApiKeys,
            "the service account has two keys of this kind: revoke one first",
        ));
    }
    api_keys::store::insert(tx, tenant, account, new, expires_at).await
}

/// The key that the first request made, by its id, and whether it has the secret that is at
/// hand now: the first one was not kept, and may never have arrived.
async fn again(
    tx: &mut TenantTx,
    tenant: TenantId,
    first: &str,
    new: &NewKey<'_>,
) -> Result<(KeyRow, bool)> {
    let first = ApiKeyId::parse("api_key_id", first)?;
    let first = api_keys::store::lock(tx, tenant, first).await?;
    let unused = first.last_used_at.is_none() && first.revoked_at.is_none() && !first.expired;
    match &new.secret_hash {
        Some(hash) if unused => {
            api_keys::store::replace_secret(tx, tenant, first.key_id, hash).await?;
            Ok((first, true))
        }
        _ => Ok((first, false)),
    }
}
