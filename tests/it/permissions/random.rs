//! Compares `BatchCheck` with an independent model, for random roles and assignments.

use serde_json::{Map, Value, json};
use tenantry::proto::v1::{BatchCheckItem, BatchCheckRequest, RoleLevel};

use crate::harness::{Client, TestApp, struct_of};

const PARTS: [&str; 4] = ["a", "b", "a.b", "*"];

/// A linear congruential generator (Knuth's MMIX). The same seed gives the same test data.
pub struct Rng(pub u64);

impl Rng {
    /// A random number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).expect("fits") % limit
    }

    pub fn pick<T: Clone>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())].clone()
    }

    /// A random permission, made of the first `parts` texts of [`PARTS`]. With `parts` = 3 the
    /// permission has no wildcard.
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

    /// A random scope for an assignment, with up to two keys. Some values are lists.
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

/// An assignment of a role to the user with this index.
struct Assignment {
    user: usize,
    permissions: Vec<String>,
    scope: Map<String, Value>,
    is_expired: bool,
}

/// The model: whether a Check is allowed. The number 1 and the text "1" differ, a list matches each
/// of its values, and every assigned key must be in the request.
fn is_allowed(
    assignments: &[Assignment],
    user: usize,
    permission: &str,
    scope: &Map<String, Value>,
) -> bool {
    let (resource, action) = permission.split_once(':').expect("a permission");
    let matching = [permission.to_owned(), format!("{resource}:*"), format!("*:{action}")];
    let fits = |assignment: &Assignment| {
        assignment.scope.iter().all(|(key, assigned_value)| {
            let allowed_values =
                assigned_value.as_array().cloned().unwrap_or_else(|| vec![assigned_value.clone()]);
            let requested = scope.get(key).map(ToString::to_string);
            allowed_values.iter().any(|value| Some(value.to_string()) == requested)
        })
    };
    assignments
        .iter()
        .filter(|assignment| assignment.user == user && !assignment.is_expired && fits(assignment))
        .any(|assignment| {
            assignment.permissions.iter().any(|permission| matching.contains(permission))
        })
}

/// Creates five users and twelve assignments over gRPC. Only expiry times are set directly in the
/// database.
async fn create_assignments(
    app: &TestApp,
    admin: &Client,
    rng: &mut Rng,
) -> (Vec<String>, Vec<Assignment>) {
    let (mut users, mut assignments) = (Vec::new(), Vec::new());
    for number in 0..5 {
        users.push(admin.create_user_without_password(&format!("u{number}@x.test")).await);
    }
    for number in 0..12 {
        let permissions: Vec<_> = (0..=rng.below(3)).map(|_| rng.permission(4)).collect();
        let permission_texts: Vec<_> = permissions.iter().map(String::as_str).collect();
        let role =
            admin.create_role(&format!("r{number}"), RoleLevel::Member, &permission_texts).await;
        let user = rng.below(users.len());
        let scope = rng.scope();
        let assignment_id =
            admin.assign_with_scope(&users[user], &role, Value::Object(scope.clone())).await;
        let is_expired = rng.below(4) == 0;
        let expiry =
            if is_expired { "now() - interval '1 second'" } else { "now() + interval '1 hour'" };
        if is_expired || rng.below(2) == 0 {
            let set_expiry = format!(
                "update role_assignments set expires_at = {expiry} where assignment_id = $1::uuid"
            );
            sqlx::query(sqlx::AssertSqlSafe(set_expiry))
                .bind(&assignment_id)
                .execute(&mut app.owner_connection().await)
                .await
                .expect("the expiry is set");
        }
        assignments.push(Assignment { user, permissions, scope, is_expired });
    }
    (users, assignments)
}

/// F01: the decisions of 500 random Checks match the model.
#[tokio::test]
async fn batch_check_matches_the_model_for_random_assignments() {
    let app = TestApp::shared();
    for seed in 1..=6 {
        let mut rng = Rng(seed);
        let admin = app.create_tenant(&format!("world-{seed}")).await;
        let (users, assignments) = create_assignments(&app, &admin, &mut rng).await;

        let checks: Vec<_> = (0..500)
            .map(|_| (rng.below(users.len()), rng.permission(3), request_scope(&mut rng)))
            .collect();
        let items = checks.iter().map(|(user, permission, scope)| BatchCheckItem {
            user_id: users[*user].clone(),
            permission: permission.clone(),
            scope: struct_of(Value::Object(scope.clone())),
            ..BatchCheckItem::default()
        });
        let request = BatchCheckRequest { items: items.collect(), ..BatchCheckRequest::default() };
        let reply = admin.permissions().batch_check(request).await.expect("decisions").into_inner();

        assert_eq!(reply.results.len(), checks.len());
        let mut allowed_count = 0;
        for ((user, permission, scope), result) in checks.iter().zip(&reply.results) {
            let expected = is_allowed(&assignments, *user, permission, scope);
            allowed_count += usize::from(expected);
            assert_eq!(result.allowed, expected, "seed {seed}: {user} {permission} {scope:?}");
        }
        assert!(
            (20..480).contains(&allowed_count),
            "seed {seed}: {allowed_count} of 500 are allowed, too few or too many"
        );
    }
}

/// A random scope for a request. Its values are scalars.
pub fn request_scope(rng: &mut Rng) -> Map<String, Value> {
    let mut scope = Map::new();
    for key in ["p", "q", "r"] {
        if rng.below(3) > 0 {
            scope.insert(key.into(), rng.scalar());
        }
    }
    scope
}
