//! `CreateApiKey` and `RevokeApiKey`.

use prost_types::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use time::{Duration, OffsetDateTime};

use super::{ServiceAccounts, store};
use crate::{
    api::idempotency::{self, Key},
    audit::{self, Event, EventKind},
    clock,
    credentials::api_keys::{
        self, Secret, certificate_name,
        store::{KeyRow, NewKey},
    },
    db::TenantTx,
    error::{Error, Result},
    gate::WriteCaller,
    ids::{ApiKeyId, SubjectId, TenantId},
    power::rule::{self, Expiry},
    proto::v1::{
        CreateApiKeyRequest, CreateApiKeyResponse, ErrorReason, create_api_key_request::Credential,
    },
    tokens::AssertionKey,
};

/// Lifetime of a key whose request has no expiry.
const DEFAULT_LIFETIME: Duration = Duration::days(365);

/// The permission to create keys. A key expires no later than the assignment that gives its creator
/// this permission.
const CREATE_PERMISSION: &str = "api_key:create";

/// Maximum number of valid keys of one kind per account. Two allow a rotation: the old key and
/// its successor.
const MAX_KEYS_OF_KIND: i64 = 2;

impl ServiceAccounts {
    pub(super) async fn create_key(
        &self,
        write_caller: &WriteCaller,
        message: CreateApiKeyRequest,
    ) -> Result<CreateApiKeyResponse> {
        let tenant = write_caller.tenant();
        let account = SubjectId::parse("service_account_id", &message.service_account_id)?;
        let requested_expiry = message.expire_time.as_ref().map(parse_expiry).transpose()?;
        let credential = KeyCredential::from_request(tenant, message.credential.as_ref())?;
        let new_key = NewKey { name: &message.name, ..credential.new_key() };
        let idempotency_key = Key {
            tenant,
            actor: Some(write_caller.user()),
            method: "CreateApiKey",
            request_id: &message.request_id,
            fingerprint: idempotency::fingerprint(&message),
        };

        let mut tx = self.db.begin(tenant).await?;
        store::lock(&mut tx, tenant, account).await?;
        let (caller, latest_expiry) =
            write_caller.authorize_api_key(&mut tx, account, CREATE_PERMISSION).await?;
        let expires_at = new_expiry(requested_expiry, latest_expiry)?;
        let first_response =
            idempotency::find_response::<CreateApiKeyResponse>(&mut tx, &idempotency_key).await?;
        let is_first_request = first_response.is_none();
        let (row, has_new_credential) = match first_response.and_then(|response| response.api_key) {
            Some(first_key) => {
                handle_repeated_request(&mut tx, tenant, &first_key.id, &new_key, latest_expiry)
                    .await?
            }
            None => (insert_key(&mut tx, tenant, account, &new_key, expires_at).await?, true),
        };
        // A repeated request that neither creates a key nor replaces a secret is not recorded.
        if has_new_credential {
            let event = Event::new(EventKind::ApiKeyCreated).target(account.0);
            let event = event
                .detail("api_key_id", row.key_id.to_string())
                .detail("credential", credential.name())
                .optional_detail("secret_replaced", (!is_first_request).then_some(true))
                .detail("expire_time", clock::rfc3339(row.expires_at))
                .detail("name", row.name.as_str());
            audit::record(&mut tx, &caller.actor(), event).await?;
        }
        let key_id = row.key_id.0;
        let mut response = CreateApiKeyResponse {
            api_key: Some(row.into()),
            secret: String::new(),
            consistency_token: tx.consistency_token().await?,
        };
        if is_first_request {
            // The response is stored without the secret, because the text of a secret is never
            // stored.
            idempotency::store_response(&mut tx, &idempotency_key, key_id, &response).await?;
        }
        tx.commit().await?;
        if let Some(text) = credential.secret_text().filter(|_| has_new_credential) {
            text.expose_secret().clone_into(&mut response.secret);
        }
        Ok(response)
    }

    /// Revokes a key; returns the consistency token of the revocation.
    pub(super) async fn revoke_key(
        &self,
        write_caller: &WriteCaller,
        key: ApiKeyId,
    ) -> Result<String> {
        let tenant = write_caller.tenant();
        let mut tx = self.db.begin(tenant).await?;
        let account =
            api_keys::store::find_owner(&mut tx, tenant, key, write_caller.only_accessible_user())
                .await?;
        let account = account.ok_or_else(Error::not_found)?;
        let caller = write_caller.authorize_take(&mut tx, account).await?;
        let Some(ended_sessions) = api_keys::store::revoke(&mut tx, tenant, key).await? else {
            return tx.consistency_token().await;
        };
        let event = Event::new(EventKind::ApiKeyRevoked).target(account.0);
        let event = event.detail("api_key_id", key.to_string());
        self.session_cache.finish(tx, &caller.actor(), event, ended_sessions).await
    }
}

/// The credential of a new key.
enum KeyCredential {
    Secret(Secret, SecretString),
    PublicKey(String),
    Certificate(String),
}

impl KeyCredential {
    fn from_request(tenant: TenantId, credential: Option<&Credential>) -> Result<Self> {
        match credential {
            None => Secret::new(tenant).map(|(secret, text)| Self::Secret(secret, text)),
            // This only checks the key, so the subject and the audience are empty.
            Some(Credential::PublicKey(pem)) => match AssertionKey::read(pem, "", "") {
                Ok(_) => Ok(Self::PublicKey(pem.clone())),
                Err(error) => Err(Error::field("public_key", format!("can't be used: {error}"))),
            },
            Some(Credential::CertificateName(name)) => {
                let invalid_name =
                    || Error::field("certificate_name", "must be a DNS name or a URI");
                certificate_name(name).map(Self::Certificate).ok_or_else(invalid_name)
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

    /// The text of a new secret, for the response.
    fn secret_text(&self) -> Option<&SecretString> {
        match self {
            Self::Secret(_, text) => Some(text),
            _ => None,
        }
    }
}

fn parse_expiry(requested_expiry: &Timestamp) -> Result<OffsetDateTime> {
    clock::future_time_from_timestamp(requested_expiry)
        .ok_or_else(|| Error::field("expire_time", "must be a time in the future"))
}

/// The expiry of a new key: the requested expiry, which must not be later than `latest_expiry`. If
/// no expiry is requested, the result is a year from now, or `latest_expiry` if that is earlier.
fn new_expiry(
    requested_expiry: Option<OffsetDateTime>,
    latest_expiry: Expiry,
) -> Result<OffsetDateTime> {
    if let Some(requested_expiry) = requested_expiry {
        rule::check_end(Some(requested_expiry).into(), latest_expiry)?;
        return Ok(requested_expiry);
    }
    let default_expiry = clock::now() + DEFAULT_LIFETIME;
    let latest_time = match latest_expiry {
        Expiry::At(seconds) => OffsetDateTime::from_unix_timestamp(seconds).ok(),
        Expiry::Never => None,
    };
    Ok(latest_time.map_or(default_expiry, |latest_time| latest_time.min(default_expiry)))
}

async fn insert_key(
    tx: &mut TenantTx,
    tenant: TenantId,
    account: SubjectId,
    new_key: &NewKey<'_>,
    expires_at: OffsetDateTime,
) -> Result<KeyRow> {
    api_keys::store::delete_ended(tx, tenant, account).await?;
    if api_keys::store::count_valid_of_kind(tx, tenant, account, new_key).await? >= MAX_KEYS_OF_KIND
    {
        return Err(Error::refused(
            ErrorReason::TooManyApiKeys,
            "the service account has two keys of this kind: revoke one first",
        ));
    }
    api_keys::store::insert(tx, tenant, account, new_key, expires_at).await
}

/// Handles a repeated request to create a key. Returns the key of the first request, and whether
/// the key has a new secret now. The client may not have received the first secret, whose text was
/// not stored. Therefore a key that was never used gets a new secret.
async fn handle_repeated_request(
    tx: &mut TenantTx,
    tenant: TenantId,
    first_key_id: &str,
    new_key: &NewKey<'_>,
    latest_expiry: Expiry,
) -> Result<(KeyRow, bool)> {
    let key_id = ApiKeyId::parse("api_key_id", first_key_id)?;
    let row = api_keys::store::lock(tx, tenant, key_id).await?;
    let is_unused = row.last_used_at.is_none() && row.revoked_at.is_none() && !row.expired;
    match &new_key.secret_hash {
        Some(hash) if is_unused => {
            rule::check_end(Some(row.expires_at).into(), latest_expiry)?;
            api_keys::store::replace_secret(tx, tenant, row.key_id, hash).await?;
            Ok((row, true))
        }
        _ => Ok((row, false)),
    }
}
