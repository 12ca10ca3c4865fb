//! The gRPC methods of `AuthService`.

use std::time::Instant;

use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use super::Auth;
use crate::{
    clock::timestamp,
    credentials::api_keys::ClientNames,
    error::Error,
    gate::{self, NamedTenant},
    proto::v1::{
        ChangeEmailRequest, ChangeEmailResponse, ChangePasswordRequest, ChangePasswordResponse,
        ExchangeApiKeyRequest, ExchangeApiKeyResponse, GetJwksRequest, GetJwksResponse,
        IntrospectTokenRequest, IntrospectTokenResponse, LoginRequest, LoginResponse,
        LogoutRequest, LogoutResponse, RefreshRequest, RefreshResponse, RegisterRequest,
        RegisterResponse, RequestEmailVerificationRequest, RequestEmailVerificationResponse,
        RequestPasswordResetRequest, RequestPasswordResetResponse, ResetPasswordRequest,
        ResetPasswordResponse, VerifyEmailRequest, VerifyEmailResponse, WhoAmIRequest,
        WhoAmIResponse, auth_service_server::AuthService,
    },
    tokens::TokenPair,
};

#[tonic::async_trait]
impl AuthService for Auth {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        let message = request.into_inner();
        let (named, origin) = (visitor.tenant(), visitor.origin());
        let response = Box::pin(self.accounts.register(named, origin, message)).await?;
        Ok(Response::new(response))
    }

    async fn login(
        &self,
        request: Request<LoginRequest>,
    ) -> Result<Response<LoginResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        let message = request.into_inner();
        let sign_in = self.sign_ins.failure_timing.begin(visitor.start_time());
        let result =
            self.sign_ins.login(&sign_in, visitor.tenant(), visitor.origin(), message).await;
        Ok(Response::new(sign_in.delay_failure(result).await?.into()))
    }

    async fn refresh(
        &self,
        request: Request<RefreshRequest>,
    ) -> Result<Response<RefreshResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        let message = request.into_inner();
        let pair = self.sign_ins.refresh(visitor.tenant(), visitor.origin(), message).await?;
        Ok(Response::new(pair.into()))
    }

    async fn logout(
        &self,
        request: Request<LogoutRequest>,
    ) -> Result<Response<LogoutResponse>, Status> {
        let caller = gate::caller(&request)?;
        let consistency_token =
            self.sign_ins.logout(&caller, &request.get_ref().session_id).await?;
        Ok(Response::new(LogoutResponse { consistency_token }))
    }

    async fn introspect_token(
        &self,
        request: Request<IntrospectTokenRequest>,
    ) -> Result<Response<IntrospectTokenResponse>, Status> {
        let self_or_permitted = gate::self_or_permitted(&request)?;
        let response =
            self.sign_ins.introspect(&self_or_permitted, &request.get_ref().token).await?;
        Ok(Response::new(response))
    }

    async fn get_jwks(
        &self,
        request: Request<GetJwksRequest>,
    ) -> Result<Response<GetJwksResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        if matches!(visitor.tenant(), NamedTenant::Unknown(_)) {
            return Err(Error::not_found().into());
        }
        Ok(Response::new(GetJwksResponse { keys: self.sign_ins.keyring.jwks() }))
    }

    async fn who_am_i(
        &self,
        request: Request<WhoAmIRequest>,
    ) -> Result<Response<WhoAmIResponse>, Status> {
        let caller = gate::caller(&request)?;
        Ok(Response::new(self.sign_ins.who_am_i(&caller).await?))
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let caller = gate::caller(&request)?;
        let sign_in = self.accounts.failure_timing.begin(Instant::now());
        let result = self.accounts.change_password(&sign_in, &caller, request.into_inner()).await;
        let consistency_token = sign_in.delay_failure(result).await?;
        Ok(Response::new(ChangePasswordResponse { consistency_token }))
    }

    async fn request_password_reset(
        &self,
        request: Request<RequestPasswordResetRequest>,
    ) -> Result<Response<RequestPasswordResetResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        let message = request.into_inner();
        let (named, origin) = (visitor.tenant(), visitor.origin());
        self.accounts.request_password_reset(named, origin, message).await?;
        Ok(Response::new(RequestPasswordResetResponse {}))
    }

    async fn reset_password(
        &self,
        request: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        let message = request.into_inner();
        let (named, origin) = (visitor.tenant(), visitor.origin());
        let consistency_token = self.accounts.reset_password(named, origin, message).await?;
        Ok(Response::new(ResetPasswordResponse { consistency_token }))
    }

    async fn request_email_verification(
        &self,
        request: Request<RequestEmailVerificationRequest>,
    ) -> Result<Response<RequestEmailVerificationResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        let message = request.into_inner();
        let (named, origin) = (visitor.tenant(), visitor.origin());
        self.accounts.request_email_verification(named, origin, message).await?;
        Ok(Response::new(RequestEmailVerificationResponse {}))
    }

    async fn verify_email(
        &self,
        request: Request<VerifyEmailRequest>,
    ) -> Result<Response<VerifyEmailResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        let message = request.into_inner();
        let (named, origin) = (visitor.tenant(), visitor.origin());
        let response = Box::pin(self.accounts.verify_email(named, origin, message)).await?;
        Ok(Response::new(response))
    }

    async fn change_email(
        &self,
        request: Request<ChangeEmailRequest>,
    ) -> Result<Response<ChangeEmailResponse>, Status> {
        let caller = gate::caller(&request)?;
        let sign_in = self.accounts.failure_timing.begin(Instant::now());
        let result = self.accounts.change_email(&sign_in, &caller, request.into_inner()).await;
        Ok(Response::new(sign_in.delay_failure(result).await?))
    }

    async fn exchange_api_key(
        &self,
        request: Request<ExchangeApiKeyRequest>,
    ) -> Result<Response<ExchangeApiKeyResponse>, Status> {
        let visitor = gate::visitor(&request)?;
        let certificate_names = request.extensions().get::<ClientNames>().cloned();
        let message = request.into_inner();
        let (named, origin) = (visitor.tenant(), visitor.origin());
        let token =
            self.sign_ins.exchange_api_key(named, origin, message, certificate_names).await?;
        Ok(Response::new(ExchangeApiKeyResponse {
            access_token: token.jwt.expose_secret().to_owned(),
            access_expire_time: Some(timestamp(token.expires_at)),
        }))
    }
}

impl From<TokenPair> for LoginResponse {
    fn from(pair: TokenPair) -> Self {
        Self {
            access_token: pair.access.jwt.expose_secret().to_owned(),
            refresh_token: pair.refresh.jwt.expose_secret().to_owned(),
            access_expire_time: Some(timestamp(pair.access.expires_at)),
            refresh_expire_time: Some(timestamp(pair.refresh.expires_at)),
            session_id: pair.session.to_string(),
        }
    }
}

impl From<TokenPair> for RefreshResponse {
    fn from(pair: TokenPair) -> Self {
        let LoginResponse {
            access_token,
            refresh_token,
            access_expire_time,
            refresh_expire_time,
            session_id,
        } = pair.into();
        Self { access_token, refresh_token, access_expire_time, refresh_expire_time, session_id }
    }
}
