//! The gRPC methods of `ServiceAccountService`.

use tonic::{Request, Response, Status};

use super::{ServiceAccounts, store::AccountRow};
use crate::{
    api::update_mask::etag,
    clock::timestamp,
    credentials::api_keys::store::KeyRow,
    gate,
    ids::{ApiKeyId, SubjectId},
    proto::v1::{
        ApiKey, ApiKeyState, CreateApiKeyRequest, CreateApiKeyResponse,
        CreateServiceAccountRequest, CreateServiceAccountResponse, DeleteServiceAccountRequest,
        DeleteServiceAccountResponse, GetServiceAccountRequest, GetServiceAccountResponse,
        ListApiKeysRequest, ListApiKeysResponse, ListServiceAccountsRequest,
        ListServiceAccountsResponse, RevokeApiKeyRequest, RevokeApiKeyResponse, ServiceAccount,
        service_account_service_server::ServiceAccountService,
    },
};

#[tonic::async_trait]
impl ServiceAccountService for ServiceAccounts {
    async fn create_service_account(
        &self,
        request: Request<CreateServiceAccountRequest>,
    ) -> Result<Response<CreateServiceAccountResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create(&write_caller, message).await?))
    }

    async fn get_service_account(
        &self,
        request: Request<GetServiceAccountRequest>,
    ) -> Result<Response<GetServiceAccountResponse>, Status> {
        let self_or_permitted = gate::self_or_permitted(&request)?;
        let account = parse_account(&request.into_inner().service_account_id)?;
        let (caller, account) = self_or_permitted.caller_and_subject(Some(account))?;
        let row = self.get(caller, account).await?;
        Ok(Response::new(GetServiceAccountResponse { service_account: Some(row.into()) }))
    }

    async fn list_service_accounts(
        &self,
        request: Request<ListServiceAccountsRequest>,
    ) -> Result<Response<ListServiceAccountsResponse>, Status> {
        let caller = gate::caller(&request)?;
        let (service_accounts, next_page_token) = self.list(&caller, request.get_ref()).await?;
        Ok(Response::new(ListServiceAccountsResponse { service_accounts, next_page_token }))
    }

    async fn delete_service_account(
        &self,
        request: Request<DeleteServiceAccountRequest>,
    ) -> Result<Response<DeleteServiceAccountResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        let account = parse_account(&message.service_account_id)?;
        let consistency_token = self.delete(&write_caller, account, &message.etag).await?;
        Ok(Response::new(DeleteServiceAccountResponse { consistency_token }))
    }

    async fn create_api_key(
        &self,
        request: Request<CreateApiKeyRequest>,
    ) -> Result<Response<CreateApiKeyResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let message = request.into_inner();
        Ok(Response::new(self.create_key(&write_caller, message).await?))
    }

    async fn list_api_keys(
        &self,
        request: Request<ListApiKeysRequest>,
    ) -> Result<Response<ListApiKeysResponse>, Status> {
        let self_or_permitted = gate::self_or_permitted(&request)?;
        let message = request.into_inner();
        let account = parse_account(&message.service_account_id)?;
        let (caller, account) = self_or_permitted.caller_and_subject(Some(account))?;
        let (api_keys, next_page_token) = self.list_keys(caller, account, &message).await?;
        Ok(Response::new(ListApiKeysResponse { api_keys, next_page_token }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<RevokeApiKeyRequest>,
    ) -> Result<Response<RevokeApiKeyResponse>, Status> {
        let write_caller = gate::write_caller(&request)?;
        let key = ApiKeyId::parse("api_key_id", &request.into_inner().api_key_id)?;
        let consistency_token = self.revoke_key(&write_caller, key).await?;
        Ok(Response::new(RevokeApiKeyResponse { consistency_token }))
    }
}

fn parse_account(text: &str) -> crate::error::Result<SubjectId> {
    SubjectId::parse("service_account_id", text)
}

impl From<AccountRow> for ServiceAccount {
    fn from(row: AccountRow) -> Self {
        Self {
            id: row.account_id.to_string(),
            tenant_id: row.tenant_id.to_string(),
            name: row.name,
            description: row.description,
            create_time: Some(timestamp(row.created_at)),
            update_time: Some(timestamp(row.updated_at)),
            etag: etag(row.version),
        }
    }
}

impl From<KeyRow> for ApiKey {
    fn from(row: KeyRow) -> Self {
        let revoked_at = row.revocation_time();
        let state = match (revoked_at, row.expired) {
            (Some(_), _) => ApiKeyState::Revoked,
            (None, true) => ApiKeyState::Expired,
            (None, false) => ApiKeyState::Active,
        };
        Self {
            id: row.key_id.to_string(),
            service_account_id: row.account_id.to_string(),
            name: row.name,
            public_key: row.public_key.unwrap_or_default(),
            certificate_name: row.certificate_name.unwrap_or_default(),
            state: state.into(),
            create_time: Some(timestamp(row.created_at)),
            expire_time: Some(timestamp(row.expires_at)),
            last_use_time: row.last_used_at.map(timestamp),
            revoke_time: revoked_at.map(timestamp),
        }
    }
}
