//! A service account with a key from the creation to the deletion.

use tenantry::proto::v1::{
    CheckRequest, CreateApiKeyRequest, CreateServiceAccountRequest, DeleteServiceAccountRequest,
    ExchangeApiKeyRequest, GetServiceAccountRequest, IntrospectTokenRequest, ListApiKeysRequest,
    ListServiceAccountsRequest, RevokeApiKeyRequest, exchange_api_key_request::Credential,
};

use super::{Mix, Result};
use crate::soak::setup::{PERMISSIONS, Tenant};

impl Mix {
    pub(super) async fn use_account(&self, tenant: &Tenant) -> Result {
        let (admin, anonymous) = (&tenant.admin, &self.anonymous);
        let request =
            CreateServiceAccountRequest { name: self.new_name("account"), ..Default::default() };
        let sent = admin
            .call("CreateServiceAccount", async || {
                admin.accounts().create_service_account(request.clone()).await
            })
            .await?;
        let service_account_id = sent.service_account.unwrap_or_default().id;
        let request = GetServiceAccountRequest { service_account_id: service_account_id.clone() };
        admin
            .call("GetServiceAccount", async || {
                admin.accounts().get_service_account(request.clone()).await
            })
            .await?;
        let request = ListServiceAccountsRequest { page_size: 20, ..Default::default() };
        admin
            .call("ListServiceAccounts", async || {
                admin.accounts().list_service_accounts(request.clone()).await
            })
            .await?;
        let request = CreateApiKeyRequest {
            service_account_id: service_account_id.clone(),
            name: "key".to_owned(),
            ..Default::default()
        };
        let key = admin
            .call("CreateApiKey", async || admin.accounts().create_api_key(request.clone()).await)
            .await?;
        let request = ListApiKeysRequest {
            service_account_id: service_account_id.clone(),
            ..Default::default()
        };
        admin
            .call("ListApiKeys", async || admin.accounts().list_api_keys(request.clone()).await)
            .await?;
        let request = ExchangeApiKeyRequest {
            credential: Some(Credential::ApiKey(key.secret)),
            ..Default::default()
        };
        let token = anonymous
            .call("ExchangeApiKey", async || {
                anonymous.auth().exchange_api_key(request.clone()).await
            })
            .await?;
        let account = anonymous.with_token(&token.access_token);
        let request = CheckRequest { permission: PERMISSIONS[0].to_owned(), ..Default::default() };
        account.call("Check", async || account.permissions().check(request.clone()).await).await?;
        let request = IntrospectTokenRequest { token: token.access_token };
        admin
            .call("IntrospectToken", async || admin.auth().introspect_token(request.clone()).await)
            .await?;
        let request = RevokeApiKeyRequest { api_key_id: key.api_key.unwrap_or_default().id };
        admin
            .call("RevokeApiKey", async || admin.accounts().revoke_api_key(request.clone()).await)
            .await?;
        let request = DeleteServiceAccountRequest { service_account_id, ..Default::default() };
        admin
            .call("DeleteServiceAccount", async || {
                admin.accounts().delete_service_account(request.clone()).await
            })
            .await
            .map(drop)
    }
}
