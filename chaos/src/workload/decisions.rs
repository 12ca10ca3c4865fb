//! Decisions: `Check`, `BatchCheck`, `ListPermissions` and `ListSubjects`.

use tenantry::proto::v1::{
    BatchCheckItem, BatchCheckRequest, BatchCheckResponse, CheckRequest, CheckResponse,
    Consistency, ListPermissionsRequest, ListPermissionsResponse, ListSubjectsRequest,
    ListSubjectsResponse,
};

use super::{
    call::{Call, Client, Kind, admitted},
    world::{PERMISSIONS, Session, User, World, WriteToken, allowed_by},
};
use crate::history::{Condition, Freshness, Op, OpId};

const CHECK: &str = "/tenantry.v1.PermissionService/Check";

/// The consistency of a call: the fields of the request, and what the answer guarantees.
struct Mode {
    consistency: Consistency,
    token: String,
    /// The operation that returned the consistency token.
    token_of: Option<OpId>,
    freshness: Freshness,
    text: &'static str,
}

impl Client {
    fn random_mode(&mut self, token: Option<WriteToken>) -> Mode {
        let mode = |consistency, freshness, text| Mode {
            consistency,
            token: String::new(),
            token_of: None,
            freshness,
            text,
        };
        // A reader asks only for what a cache may answer.
        let choice = if self.kind() == Kind::Reader { 5..10 } else { 0..10 };
        match (self.rng.u8(choice), token) {
            (0..=1, _) => {
                mode(Consistency::FullyConsistent, Freshness::Current, "fully consistent")
            }
            (2..=4, Some(token)) => Mode {
                consistency: Consistency::AtLeastAsFresh,
                freshness: Freshness::SinceToken(token.op),
                token: token.token,
                token_of: Some(token.op),
                text: "at least as fresh",
            },
            (5, _) => mode(Consistency::Unspecified, Freshness::Bounded, "default"),
            _ => mode(Consistency::MinimizeLatency, Freshness::Bounded, "minimize latency"),
        }
    }

    /// The user whom the token's write changed, or a random user. So many decisions are about data
    /// that has just changed.
    fn user_of_token(&mut self, tenant: usize, token: Option<&WriteToken>) -> Option<User> {
        let world = self.world.clone();
        let changed_number = token.and_then(|token| token.user).filter(|_| self.rng.bool());
        let changed_user = changed_number.and_then(|number| world.users().get(number).cloned());
        changed_user.or_else(|| world.random_user(&mut self.rng, tenant))
    }

    /// Asks as an administrator whether a user is allowed something.
    pub async fn check(&mut self, tenant: usize) {
        let token = self.world.random_token(&mut self.rng, tenant);
        let Some(user) = self.user_of_token(tenant, token.as_ref()) else { return };
        let permission = self.rng.usize(..PERMISSIONS.len());
        let mode = self.random_mode(token);
        let arguments = format!("user {}, {}, {}", user.number, PERMISSIONS[permission], mode.text);
        let message = CheckRequest {
            user_id: user.id.clone(),
            permission: PERMISSIONS[permission].to_owned(),
            consistency: mode.consistency.into(),
            consistency_token: mode.token,
            ..Default::default()
        };
        let (mut op, response) =
            self.send_as_admin::<_, CheckResponse>(CHECK, tenant, arguments, message).await;
        op.token = mode.token_of;
        if let Some(response) = response {
            let allowed = self.world.allowed(&user, permission);
            add_decision_evidence(&mut op, allowed, response.allowed, mode.freshness);
        }
        self.record(op);
    }

    /// Asks as an administrator about a user of another tenant. The server must not know the user.
    pub async fn check_foreign(&mut self, tenant: usize) {
        let world = self.world.clone();
        let other = (tenant + 1) % world.tenants.len();
        let Some(user) = world.random_user(&mut self.rng, other) else { return };
        let permission = self.rng.usize(..PERMISSIONS.len());
        let arguments = format!("user {} of another tenant", user.number);
        let message = CheckRequest {
            user_id: user.id.clone(),
            permission: PERMISSIONS[permission].to_owned(),
            ..Default::default()
        };
        let (mut op, response) =
            self.send_as_admin::<_, CheckResponse>(CHECK, tenant, arguments, message).await;
        if response.is_some_and(|response| response.allowed) {
            op.foreign_rows.push(format!("user {} is allowed something", user.number));
        }
        self.record(op);
    }

    /// Asks as a user about itself.
    pub async fn check_self(&mut self, session: &Session) {
        let permission = self.rng.usize(..PERMISSIONS.len());
        let mode = self.random_mode(None);
        let message = CheckRequest {
            permission: PERMISSIONS[permission].to_owned(),
            consistency: mode.consistency.into(),
            ..Default::default()
        };
        let arguments = format!(
            "itself: session {}, user {}, {}, {}",
            session.number, session.user.number, PERMISSIONS[permission], mode.text
        );
        let token = &session.access_token;
        let tenant = Some(session.user.tenant);
        let call = Call { path: CHECK, token, tenant, arguments, replica: None };
        let (mut op, response) = self.send::<_, CheckResponse>(call, message).await;
        admitted(&mut op, &World::in_force(session));
        if let Some(response) = response {
            let allowed = self.world.allowed(&session.user, permission);
            add_decision_evidence(&mut op, allowed, response.allowed, mode.freshness);
        }
        self.record(op);
    }

    /// Asks as an administrator about the access token of a user.
    pub async fn check_access_token(&mut self, session: &Session) {
        let permission = self.rng.usize(..PERMISSIONS.len());
        let tenant = session.user.tenant;
        let token = self.world.random_token(&mut self.rng, tenant);
        let mode = self.random_mode(token);
        let message = CheckRequest {
            access_token: session.access_token.clone(),
            permission: PERMISSIONS[permission].to_owned(),
            consistency: mode.consistency.into(),
            consistency_token: mode.token,
            ..Default::default()
        };
        let arguments = format!(
            "access token of session {}, user {}, {}, {}",
            session.number, session.user.number, PERMISSIONS[permission], mode.text
        );
        let (mut op, response) =
            self.send_as_admin::<_, CheckResponse>(CHECK, tenant, arguments, message).await;
        op.token = mode.token_of;
        if let Some(response) = response {
            let mut conditions = World::in_force(session);
            conditions.push(self.world.allowed(&session.user, permission));
            let allowed = Condition::All(conditions);
            add_decision_evidence(&mut op, allowed, response.allowed, mode.freshness);
        }
        self.record(op);
    }

    /// Asks several questions in one call, as an administrator.
    pub async fn batch_check(&mut self, tenant: usize) {
        let token = self.world.random_token(&mut self.rng, tenant);
        let mode = self.random_mode(token);
        let mut questions = Vec::new();
        for _ in 0..self.rng.usize(1..8) {
            let Some(user) = self.world.random_user(&mut self.rng, tenant) else { return };
            questions.push((user, self.rng.usize(..PERMISSIONS.len())));
        }
        let items = questions.iter().map(|(user, permission)| BatchCheckItem {
            user_id: user.id.clone(),
            permission: PERMISSIONS[*permission].to_owned(),
            ..Default::default()
        });
        let message = BatchCheckRequest {
            items: items.collect(),
            consistency: mode.consistency.into(),
            consistency_token: mode.token,
        };
        let path = "/tenantry.v1.PermissionService/BatchCheck";
        let arguments = format!("{} questions, {}", questions.len(), mode.text);
        let (mut op, response) =
            self.send_as_admin::<_, BatchCheckResponse>(path, tenant, arguments, message).await;
        op.token = mode.token_of;
        let results = response.map(|response| response.results).unwrap_or_default();
        for ((user, permission), result) in questions.iter().zip(results) {
            if result.error.is_none() {
                let allowed = self.world.allowed(user, *permission);
                let answer = format!("; user {} {}", user.number, PERMISSIONS[*permission]);
                op.arguments.push_str(&answer);
                add_decision_evidence(&mut op, allowed, result.allowed, mode.freshness);
            }
        }
        self.record(op);
    }

    /// Lists what a user may do.
    pub async fn list_permissions(&mut self, tenant: usize) {
        let world = self.world.clone();
        let token = world.random_token(&mut self.rng, tenant);
        let Some(user) = self.user_of_token(tenant, token.as_ref()) else { return };
        let mode = self.random_mode(token);
        let message = ListPermissionsRequest {
            user_id: user.id.clone(),
            consistency: mode.consistency.into(),
            consistency_token: mode.token,
            ..Default::default()
        };
        let path = "/tenantry.v1.PermissionService/ListPermissions";
        let arguments = format!("user {}, {}", user.number, mode.text);
        let (mut op, response) = self
            .send_as_admin::<_, ListPermissionsResponse>(path, tenant, arguments, message)
            .await;
        op.token = mode.token_of;
        if let Some(response) = response {
            for role in &world.tenants[tenant].roles {
                for (permission, name) in PERMISSIONS.iter().enumerate() {
                    let is_listed = response.permissions.iter().any(|grant| {
                        grant.permission == *name && grant.role_name == world.roles[*role].name
                    });
                    let Condition::All(mut parts) = world.allowed(&user, permission) else {
                        continue;
                    };
                    // Any role may allow the permission, but this row is about one role.
                    parts.pop();
                    parts.push(allowed_by(&user, *role, permission));
                    let condition = Condition::All(parts);
                    let condition = if is_listed { condition } else { condition.negated() };
                    op.add_evidence(condition, mode.freshness);
                }
            }
            for grant in &response.permissions {
                let mut others = world.roles.iter().filter(|role| role.tenant != tenant);
                if others.any(|role| role.name == grant.role_name) {
                    op.foreign_rows.push(format!("role {}", grant.role_name));
                }
            }
        }
        self.record(op);
    }

    /// Lists the users who may do something.
    pub async fn list_subjects(&mut self, tenant: usize) {
        let world = self.world.clone();
        let permission = self.rng.usize(..PERMISSIONS.len());
        let known_users = world.users_of(tenant);
        let message = ListSubjectsRequest {
            permission: PERMISSIONS[permission].to_owned(),
            page_size: 1000,
            ..Default::default()
        };
        let path = "/tenantry.v1.PermissionService/ListSubjects";
        let arguments = format!("tenant {tenant}, {}", PERMISSIONS[permission]);
        let (mut op, response) =
            self.send_as_admin::<_, ListSubjectsResponse>(path, tenant, arguments, message).await;
        if let Some(response) = response {
            let is_listed =
                |user: &User| response.subjects.iter().any(|subject| subject.user_id == user.id);
            for user in &known_users {
                let allowed = world.allowed(user, permission);
                if is_listed(user) {
                    op.add_evidence(allowed, Freshness::Current);
                } else if response.next_page_token.is_empty() {
                    op.add_evidence(allowed.negated(), Freshness::Current);
                }
            }
            for user in world.users().iter().filter(|user| user.tenant != tenant) {
                if is_listed(user) {
                    op.foreign_rows.push(format!("user {}", user.number));
                }
            }
        }
        self.record(op);
    }
}

/// Adds the evidence of a decision: `allowing_condition` is the condition under which the
/// answer is allowed.
fn add_decision_evidence(
    op: &mut Op,
    allowing_condition: Condition,
    is_allowed: bool,
    freshness: Freshness,
) {
    op.arguments.push_str(if is_allowed { ": allowed" } else { ": denied" });
    let condition = if is_allowed { allowing_condition } else { allowing_condition.negated() };
    op.add_evidence(condition, freshness);
}
