//! Check questions that differ in one part never share a cached answer.

use proptest::{prelude::*, test_runner::TestRunner};
use serde_json::{Map, Value};
use tenantry::proto::v1::{CheckRequest, LogoutRequest, RoleLevel};
use tokio::{runtime::Handle, task::block_in_place};

use super::model::{Scope, fits};
use crate::harness::{Client, TestApp, struct_of};

/// Number of random pairs of questions.
const PAIRS: u32 = 64;

/// A Check question. The parts of a question contain characters that a cache key might use as
/// separators.
#[derive(Clone, Debug, PartialEq)]
struct Question {
    tenant: usize,
    user: usize,
    resource: String,
    action: String,
    scope: Scope,
    /// Whether the token in the question belongs to a live session or to an ended session.
    session_live: bool,
}

/// The part in which the second question of a pair differs.
#[derive(Clone, Copy, Debug)]
enum Part {
    Tenant,
    User,
    Permission,
    Scope,
    Session,
}

fn questions() -> impl Strategy<Value = Question> {
    let name = || "[ab][ab._-]{0,2}";
    let text = || "[ab:,\"\\\\{}=]{0,3}";
    let scope = prop::collection::btree_map("[ab:,.\"]{1,2}", text(), 0..3);
    (0..2_usize, 0..2_usize, name(), name(), scope).prop_map(
        |(tenant, user, resource, action, scope)| {
            let scope: Map<_, _> = scope.into_iter().map(|(k, v)| (k, Value::String(v))).collect();
            Question { tenant, user, resource, action, scope, session_live: true }
        },
    )
}

/// Two questions that differ in one part.
fn pairs() -> impl Strategy<Value = (Question, Question)> {
    let parts = [Part::Tenant, Part::User, Part::Permission, Part::Scope, Part::Session];
    let pair = (questions(), questions(), prop::sample::select(parts.to_vec()));
    pair.prop_map(|(first, other, part)| {
        let mut second = first.clone();
        match part {
            Part::Tenant => second.tenant = 1 - first.tenant,
            Part::User => second.user = 1 - first.user,
            Part::Permission => (second.resource, second.action) = (other.resource, other.action),
            Part::Scope => second.scope = other.scope,
            Part::Session => second.session_live = false,
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
    live: String,
    ended: String,
}

impl World {
    async fn new(app: &TestApp) -> Self {
        let (mut admins, mut users) = (Vec::new(), Vec::new());
        for slug in ["a", "b"] {
            let admin = app.tenant(slug).await;
            users.push([user(app, &admin, "u").await, user(app, &admin, "v").await]);
            admins.push(admin);
        }
        Self { admins, users }
    }

    /// Answers to the question with the user's id and with the user's token.
    async fn ask(&self, question: &Question) -> [bool; 2] {
        let user = &self.users[question.tenant][question.user];
        let by_id = CheckRequest {
            user_id: user.id.clone(),
            permission: format!("{}:{}", question.resource, question.action),
            scope: struct_of(Value::Object(question.scope.clone())),
            ..CheckRequest::default()
        };
        let token = if question.session_live { &user.live } else { &user.ended };
        let by_token =
            CheckRequest { user_id: String::new(), access_token: token.clone(), ..by_id.clone() };
        let admin = &self.admins[question.tenant];
        [admin.decide(by_id).await.allowed, admin.decide(by_token).await.allowed]
    }

    /// Grants the permission of the first question only, and checks both answers twice.
    async fn assert_separate_answers(&self, first: &Question, second: &Question) {
        let admin = &self.admins[first.tenant];
        let user = &self.users[first.tenant][first.user].id;
        let permission = format!("{}:{}", first.resource, first.action);
        let name = crate::harness::unknown_id();
        let role = admin.create_role(&name, RoleLevel::Member, &[&permission]).await;
        admin.assign_within(user, &role, Value::Object(first.scope.clone())).await;
        let second_is_granted = first.tenant == second.tenant
            && first.user == second.user
            && (&first.resource, &first.action) == (&second.resource, &second.action)
            && fits(&first.scope, &second.scope);
        for _ in 0..2 {
            assert_eq!(self.ask(first).await, [true, true], "{first:?}");
            assert_eq!(
                self.ask(second).await,
                [second_is_granted, second_is_granted && second.session_live],
                "{second:?}"
            );
        }
        // The first question again, after the grant is removed.
        admin.unassign(user, &role).await;
        assert_eq!(self.ask(first).await, [false, false], "{first:?}");
    }
}

async fn user(app: &TestApp, admin: &Client, name: &str) -> User {
    let id = admin.create_user_without_password(&format!("{name}@x.test")).await;
    let live = app.sign_in_as(&id, admin).await;
    let ended = app.sign_in_as(&id, admin).await;
    ended.auth().logout(LogoutRequest::default()).await.expect("signed out");
    User { id, live: token(&live), ended: token(&ended) }
}

fn token(client: &Client) -> String {
    let bearer = client.metadata.0.get("authorization").expect("a token").to_str().expect("text");
    bearer.trim_start_matches("Bearer ").to_owned()
}

/// F16: a cache key contains the tenant, user, permission, scope and session.
#[tokio::test(flavor = "multi_thread")]
async fn questions_that_differ_in_one_part_get_their_own_answers() {
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
            Handle::current().block_on(world.assert_separate_answers(&first, &second));
            Ok(())
        });
        result.expect("each question gets its own answer");
    });
}
