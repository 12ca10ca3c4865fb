//! Check against an independent model, in random worlds.

use serde_json::{Map, Value, json};
use tenantry::proto::v1::{BatchCheckItem, BatchCheckRequest, RoleLevel};

use crate::harness::{Client, TestApp, struct_of};

const PARTS: [&str; 4] = ["a", "b", "a.b", "*"];

/// A linear congruential generator (Knuth's MMIX). The seed determines the world.
pub struct Rng(pub u64);

impl Rng {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("fits") % limit
    }

    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// A random permission. With `parts` of 3 it has no wildcard.
    pub fn permission(&mut self, parts: usize) -> String {
        loop {
            let text = format!("{}:{}", PARTS[self.below(parts)], PARTS[self.below(parts)]);
            if text != "*:*" {
                return text;
            }
        }
    }

    fn scalar(&mut self) -> Value {
        self.pick(&[json!("1"), json!(1), json!(2), json!(true), json!("x"), json!(1.5)])
    }

    /// A scope with up to two keys; some values are lists.
    pub fn scope(&mut self) -> Map<String, Value> {
        let mut scope = Map::new();
        for key in ["p", "q"] {
            match self.below(4) {
                0 | 1 => {}
                2 => drop(scope.insert(key.into(), self.scalar())),
                _ => drop(scope.insert(key.into(), json!([self.scalar(), self.scalar()]))),
            }
        }
        scope
    }
}

struct Held {
    user: usize,
    permissions: Vec<String>,
    scope: Map<String, Value>,
    over: bool,
}

/// The model: the number 1 and the text "1" differ, a list matches any of its values, and every
/// assigned key must be in the request.
fn allowed(world: &[Held], user: usize, asked: &str, scope: &Map<String, Value>) -> bool {
    let (resource, action) = asked.split_once(':').expect("a permission");
    let words = [asked.to_owned(), format!("{resource}:*"), format!("*:{action}")];
    let fits = |held: &Held| {
        held.scope.iter().all(|(key, wanted)| {
            let options = wanted.as_array().cloned().unwrap_or_else(|| vec![wanted.clone()]);
            let given = scope.get(key).map(ToString::to_string);
            options.iter().any(|option| Some(option.to_string()) == given)
        })
    };
    world
        .iter()
        .filter(|held| held.user == user && !held.over && fits(held))
        .any(|held| held.permissions.iter().any(|word| words.contains(word)))
}

/// Creates a world of five users and twelve assignments over gRPC. Only expiry times are set in
/// the database.
async fn build(app: &TestApp, admin: &Client, rng: &mut Rng) -> (Vec<String>, Vec<Held>) {
    let (mut users, mut world) = (Vec::new(), Vec::new());
    for at in 0..5 {
        users.push(admin.create_user_without_password(&format!("u{at}@x.test")).await);
    }
    for at in 0..12 {
        let permissions: Vec<_> = (0..=rng.below(3)).map(|_| rng.permission(4)).collect();
        let words: Vec<_> = permissions.iter().map(String::as_str).collect();
        let role = admin.create_role(&format!("r{at}"), RoleLevel::Member, &words).await;
        let user = rng.below(users.len());
        let scope = rng.scope();
        let assignment =
            admin.assign_within(&users[user], &role, Value::Object(scope.clone())).await;
        let over = rng.below(4) == 0;
        let ends = if over { "now() - interval '1 second'" } else { "now() + interval '1 hour'" };
        if over || rng.below(2) == 0 {
            let shift = format!(
                "update role_assignments set expires_at = {ends} where assignment_id = $1::uuid"
            );
            sqlx::query(sqlx::AssertSqlSafe(shift))
                .bind(&assignment)
                .execute(&mut app.owner().await)
                .await
                .expect("shifted");
        }
        world.push(Held { user, permissions, scope, over });
    }
    (users, world)
}

/// F01
#[tokio::test]
async fn random_worlds_are_decided_like_the_model() {
    let app = TestApp::shared();
    for seed in 1..=6 {
        let mut rng = Rng(seed);
        let admin = app.tenant(&format!("world-{seed}")).await;
        let (users, world) = build(&app, &admin, &mut rng).await;

        let questions: Vec<_> = (0..500)
            .map(|_| (rng.below(users.len()), rng.permission(3), request_scope(&mut rng)))
            .collect();
        let items = questions.iter().map(|(user, permission, scope)| BatchCheckItem {
            user_id: users[*user].clone(),
            permission: permission.clone(),
            scope: struct_of(Value::Object(scope.clone())),
            ..BatchCheckItem::default()
        });
        let request = BatchCheckRequest { items: items.collect(), ..BatchCheckRequest::default() };
        let reply = admin.permissions().batch_check(request).await.expect("decisions").into_inner();

        assert_eq!(reply.results.len(), questions.len());
        let mut yes = 0;
        for ((user, permission, scope), result) in questions.iter().zip(&reply.results) {
            let wanted = allowed(&world, *user, permission, scope);
            yes += usize::from(wanted);
            assert_eq!(result.allowed, wanted, "seed {seed}: {user} {permission} {scope:?}");
        }
        assert!(
            (20..480).contains(&yes),
            "seed {seed}: {yes} of 500 are allowed, too few or too many"
        );
    }
}

/// The values of a requested scope are scalars.
pub fn request_scope(rng: &mut Rng) -> Map<String, Value> {
    let mut scope = Map::new();
    for key in ["p", "q", "r"] {
        if rng.below(3) > 0 {
            scope.insert(key.into(), rng.scalar());
        }
    }
    scope
}
