//! Sessions: sign-in, refresh, sign-out, revocation and introspection.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use tenantry::proto::v1::{
    IntrospectTokenRequest, IntrospectTokenResponse, LoginRequest, LoginResponse, LogoutRequest,
    LogoutResponse, RefreshRequest, RefreshResponse, RevokeAllSessionsRequest,
    RevokeAllSessionsResponse, RevokeSessionRequest, RevokeSessionResponse,
};

use super::{
    call::{Call, Client, admitted},
    world::{PASSWORD, Session, User, World},
};
use crate::history::{Condition, Effect, EventWhen, ExpectedEvent, Fact, Freshness, RefreshUse};

/// The id of a token: its claim `jti`.
pub fn token_id(token: &str) -> String {
    let claims = token.split('.').nth(1).and_then(|part| BASE64_URL_SAFE_NO_PAD.decode(part).ok());
    let claims = claims.and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
    let id = claims.and_then(|claims| claims["jti"].as_str().map(str::to_owned));
    id.unwrap_or_else(|| token.to_owned())
}

impl Client {
    /// Signs a user in.
    pub async fn login(&mut self, user: &User) {
        let world = self.world.clone();
        let message = LoginRequest {
            email: user.email.clone(),
            password: PASSWORD.to_owned(),
            organization_slug: world.tenants[user.tenant].slug.clone(),
            ..Default::default()
        };
        let path = "/tenantry.v1.AuthService/Login";
        let arguments = format!("user {}", user.number);
        let call = Call { path, token: "", tenant: Some(user.tenant), arguments, replica: None };
        let (mut op, response) = self.send::<_, LoginResponse>(call, message).await;
        let may_sign_in = Condition::All(vec![
            Condition::Is(Fact::TenantActive(user.tenant), true),
            Condition::Is(Fact::UserEnabled(user.number), true),
        ]);
        op.event = Some(ExpectedEvent::always("signed_in"));
        if let Some(response) = response {
            let number = world.next_session();
            op.arguments = format!("{}, session {number}", op.arguments);
            op.effects.push(Effect::Set(Fact::SessionLive(number), true));
            op.add_evidence(may_sign_in, Freshness::Current);
            world.add_session(Session {
                number,
                id: response.session_id,
                user: user.clone(),
                access_token: response.access_token,
                refresh_token: response.refresh_token,
                spent_token: None,
                pending_request: None,
                was_refused: false,
            });
        } else if op.is_refused_with("INVALID_CREDENTIALS") {
            op.add_evidence(may_sign_in.negated(), Freshness::Current);
        }
        self.record(op);
    }

    /// Refreshes a session. With `reuse`, presents the token that the last refresh replaced, if
    /// there was a refresh.
    pub async fn refresh(&mut self, session: &Session, reuse: bool) {
        let world = self.world.clone();
        let replaced_token = session.spent_token.clone().filter(|_| reuse);
        // A refresh with an unknown outcome is retried with the same request id.
        let pending_id = session.pending_request.clone().filter(|_| replaced_token.is_none());
        let request_id = pending_id.unwrap_or_else(|| format!("r{:x}", self.rng.u64(..)));
        let is_newest = replaced_token.is_none();
        let refresh_token = replaced_token.unwrap_or_else(|| session.refresh_token.clone());
        let presented = token_id(&refresh_token);
        let arguments =
            format!("session {}, token {presented}, request {request_id}", session.number);
        let message =
            RefreshRequest { refresh_token: refresh_token.clone(), request_id: request_id.clone() };
        let path = "/tenantry.v1.AuthService/Refresh";
        let tenant = Some(session.user.tenant);
        let call = Call { path, token: "", tenant, arguments, replica: None };
        let (mut op, response) = self.send::<_, RefreshResponse>(call, message).await;
        let mut successor = None;
        if let Some(response) = response {
            op.add_evidence(Condition::All(World::in_force(session)), Freshness::Current);
            successor = Some(token_id(&response.refresh_token));
            world.change_session(session.number, |session| {
                if session.refresh_token == refresh_token {
                    session.access_token = response.access_token;
                    session.refresh_token = response.refresh_token;
                    session.spent_token = Some(refresh_token);
                    session.pending_request = None;
                }
            });
        } else if op.is_unknown() && is_newest {
            let pending = Some(request_id.clone());
            world.change_session(session.number, |session| session.pending_request = pending);
        }
        let session = session.number;
        if op.is_refused_with("TOKEN_INVALID") {
            world.change_session(session, |session| session.was_refused = true);
        }
        op.refresh = Some(RefreshUse { session, presented, request_id, successor });
        self.record(op);
    }

    /// Ends a session with its own token.
    pub async fn logout(&mut self, session: &Session) {
        let fact = Fact::SessionLive(session.number);
        let path = "/tenantry.v1.AuthService/Logout";
        let token = &session.access_token;
        let arguments = format!("session {}", session.number);
        let tenant = Some(session.user.tenant);
        let call = Call { path, token, tenant, arguments, replica: None };
        let (mut op, _) = self.send::<_, LogoutResponse>(call, LogoutRequest::default()).await;
        admitted(&mut op, &World::in_force(session));
        op.effects.push(Effect::Set(fact, false));
        op.event = Some(ExpectedEvent::if_changed("signed_out", fact, false));
        self.record(op);
    }

    /// Ends a session as an administrator.
    pub async fn revoke_session(&mut self, session: &Session) {
        let fact = Fact::SessionLive(session.number);
        let path = "/tenantry.v1.SessionService/RevokeSession";
        let arguments = format!("session {}", session.number);
        let message = RevokeSessionRequest { session_id: session.id.clone() };
        let (mut op, _) = self
            .send_as_admin::<_, RevokeSessionResponse>(
                path,
                session.user.tenant,
                arguments,
                message,
            )
            .await;
        op.effects.push(Effect::Set(fact, false));
        op.event = Some(ExpectedEvent::if_changed("session_revoked", fact, false));
        self.record(op);
    }

    /// Ends all sessions of a user as an administrator.
    pub async fn revoke_all_sessions(&mut self, user: &User) {
        let path = "/tenantry.v1.SessionService/RevokeAllSessions";
        let arguments = format!("user {}", user.number);
        let message = RevokeAllSessionsRequest { user_id: user.id.clone() };
        let (mut op, response) = self
            .send_as_admin::<_, RevokeAllSessionsResponse>(path, user.tenant, arguments, message)
            .await;
        op.effects.push(Effect::EndSessions { user: user.number });
        let when = match response {
            Some(response) if response.revoked_count > 0 => EventWhen::Always,
            _ => EventWhen::Perhaps,
        };
        op.event = Some(ExpectedEvent { kind: "sessions_revoked", when });
        self.record(op);
    }

    /// Asks whether a session's access token is valid, as an administrator.
    pub async fn introspect(&mut self, session: &Session) {
        let path = "/tenantry.v1.AuthService/IntrospectToken";
        let arguments = format!("access token of session {}", session.number);
        let message = IntrospectTokenRequest { token: session.access_token.clone() };
        let tenant = session.user.tenant;
        let (mut op, response) = self
            .send_as_admin::<_, IntrospectTokenResponse>(path, tenant, arguments, message)
            .await;
        if let Some(response) = response {
            let in_force = Condition::All(World::in_force(session));
            let condition = if response.active { in_force } else { in_force.negated() };
            op.arguments = format!("{}: active {}", op.arguments, response.active);
            op.add_evidence(condition, Freshness::Bounded);
        }
        self.record(op);
    }
}
