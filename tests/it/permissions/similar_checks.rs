//! Two Checks that differ in one part never share a cached decision.

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value};
use tenantry::proto::v1::{CheckRequest, LogoutRequest, RoleLevel};
use tokio::{runtime::Handle, task::block_in_place};

use super::model::{Scope, scope_covers};
use crate::harness::{Client, TestApp, struct_of};

/// Number of random pairs of Checks.
const PAIRS: u32 = 64;

/// The parts of a Check. They contain characters that a cache key might use as separators.
#[derive(Clone, Debug, PartialEq)]
struct TestCheck {
    tenant: usize,
    user: usize,
    resource: String,
    action: String,
    scope: Scope,
    /// Whether the token in the request belongs to a live session, not to an ended session.
    has_live_session: bool,
}

/// The part in which the second Check of a pair differs.
#[derive(Clone, Copy, Debug)]
enum Part {
    Tenant,
    User,
    Permission,
    Scope,
    Session,
}

fn checks() -> impl Strategy<Value = TestCheck> {
    let name = || "[ab][ab._-]{0,2}";
    let text = || "[ab:,\"\\\\{}=]{0,3}";
    let scope = prop::collection::btree_map("[ab:,.\"]{1,2}", text(), 0..3);
    (0..2_usize, 0..2_usize, name(), name(), scope).prop_map(
        |(tenant, user, resource, action, scope)| {
            let scope: Map<_, _> = scope.into_iter().map(|(k, v)| (k, Value::String(v))).collect();
            TestCheck { tenant, user, resource, action, scope, has_live_session: true }
        },
    )
}

/// Two Checks that differ in one part.
fn pairs() -> impl Strategy<Value = (TestCheck, TestCheck)> {
    let parts = [Part::Tenant, Part::User, Part::Permission, Part::Scope, Part::Session];
    let pair = (checks(), checks(), prop::sample::select(parts.to_vec()));
    pair.prop_map(|(first, other, part)| {
        let mut second = first.clone();
        match part {
            Part::Tenant => second.tenant = 1 - first.tenant,
            Part::User => second.user = 1 - first.user,
            Part::Permission => (second.resource, second.action) = (other.resource, other.action),
            Part::Scope => second.scope = other.scope,
            Part::Session => second.has_live_session = false,
        }
        (first, second)
    })
}

/// Two tenants with two users each. Each user has a live and an ended session.
struct World {
    admins: Vec<Client>,
    users: Vec<[User; 2]>,
}

struct User {
    id: String,
    live_token: String,
    ended_token: String,
}

impl World {
    async fn new(app: &TestApp) -> Self {
        let (mut admins, mut users) = (Vec::new(), Vec::new());
        for slug in ["a", "b"] {
            let admin = app.create_tenant(slug).await;
            users.push([create_user(app, &admin, "u").await, create_user(app, &admin, "v").await]);
            admins.push(admin);
        }
        Self { admins, users }
    }

    /// The decisions of the Check by the user's id and by the user's token.
    async fn decisions(&self, check: &TestCheck) -> [bool; 2] {
        let user = &self.users[check.tenant][check.user];
        let by_id = CheckRequest {
            user_id: user.id.clone(),
            permission: format!("{}:{}", check.resource, check.action),
            scope: struct_of(Value::Object(check.scope.clone())),
            ..CheckRequest::default()
        };
        let token = if check.has_live_session { &user.live_token } else { &user.ended_token };
        let by_token =
            CheckRequest { user_id: String::new(), access_token: token.clone(), ..by_id.clone() };
        let admin = &self.admins[check.tenant];
        [admin.decide(by_id).await.allowed, admin.decide(by_token).await.allowed]
    }

    /// Grants only the permission of the first Check. Asserts the decisions of both Checks twice,
    /// because the second decisions may come from a cache.
    async fn assert_separate_decisions(&self, first: &TestCheck, second: &TestCheck) {
        let admin = &self.admins[first.tenant];
        let user = &self.users[first.tenant][first.user].id;
        let permission = format!("{}:{}", first.resource, first.action);
        let name = crate::harness::unique_text();
        let role = admin.create_role(&name, RoleLevel::Member, &[&permission]).await;
        admin.assign_with_scope(user, &role, Value::Object(first.scope.clone())).await;
        let second_is_granted = first.tenant == second.tenant
            && first.user == second.user
            && (&first.resource, &first.action) == (&second.resource, &second.action)
            && scope_covers(&first.scope, &second.scope);
        for _ in 0..2 {
            assert_eq!(self.decisions(first).await, [true, true], "{first:?}");
            assert_eq!(
                self.decisions(second).await,
                [second_is_granted, second_is_granted && second.has_live_session],
                "{second:?}"
            );
        }
        // The first Check again, without the grant.
        admin.unassign(user, &role).await;
        assert_eq!(self.decisions(first).await, [false, false], "{first:?}");
    }
}

async fn create_user(app: &TestApp, admin: &Client, name: &str) -> User {
    let id = admin.create_user_without_password(&format!("{name}@x.test")).await;
    let signed_in_client = app.create_session(&id, admin).await;
    let signed_out_client = app.create_session(&id, admin).await;
    signed_out_client.auth().logout(LogoutRequest::default()).await.expect("signed out");
    User { id, live_token: token(&signed_in_client), ended_token: token(&signed_out_client) }
}

fn token(client: &Client) -> String {
    let bearer = client.metadata.0.get("authorization").expect("a token").to_str().expect("text");
    bearer.trim_start_matches("Bearer ").to_owned()
}

/// F16: a cache key contains the tenant, user, permission, scope and session.
#[tokio::test(flavor = "multi_thread")]
async fn checks_that_differ_in_one_part_get_separate_decisions() {
    let app = TestApp::shared();
    let world = World::new(&app).await;
    let mut runner = TestRunner::new(ProptestConfig {
        cases: PAIRS,
        failure_persistence: None,
        max_shrink_iters: 100,
        ..ProptestConfig::default()
    });
    block_in_place(|| {
        let result = runner.run(&pairs(), |(first, second)| {
            Handle::current().block_on(world.assert_separate_decisions(&first, &second));
            Ok(())
        });
        result.expect("each Check gets its own decision");
    });
}
