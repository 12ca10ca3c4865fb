//! Compares the decisions of `Check` and `BatchCheck` with an independent model, for each role.

use tenantry::proto::v1::{BatchCheckItem, BatchCheckRequest, CheckRequest, RoleLevel};

use crate::harness::{Client, TestApp};

const ROLES: [(&str, &[&str]); 6] = [
    ("nothing", &[]),
    ("reader", &["doc:read", "bill:read"]),
    ("doc-all-actions", &["doc:*"]),
    ("auditor", &["*:read"]),
    ("mixed", &["bill:write", "team.a:*", "*:list", "doc_x:read"]),
    ("similar-names", &["docs:read", "do:read", "doc-x:*", "bill:reads"]),
];
const RESOURCES: [&str; 8] =
    ["doc", "docs", "doc_x", "doc-x", "bill", "team.a", "team", "permission"];
const ACTIONS: [&str; 5] = ["read", "write", "list", "reads", "delete"];

/// The model: whether a role with these permissions covers a permission. The model was written
/// independently of the server's code, so that the same mistake is unlikely in both.
fn permits(permissions: &[&str], resource: &str, action: &str) -> bool {
    let matching = [
        format!("{resource}:{action}"),
        format!("{resource}:*"),
        format!("*:{action}"),
        "*:*".to_owned(),
    ];
    permissions.iter().any(|permission| matching.iter().any(|form| form == permission))
}

/// Creates one user for each role in [`ROLES`]. Returns the user ids.
async fn create_users(admin: &Client) -> Vec<String> {
    let mut users = Vec::new();
    for (name, permissions) in ROLES {
        let user = admin.create_user_without_password(&format!("{name}@x.test")).await;
        let role = admin.create_role(name, RoleLevel::Member, permissions).await;
        admin.assign(&user, &role).await;
        users.push(user);
    }
    users
}

/// All pairs of a resource and an action.
fn checks() -> Vec<(&'static str, &'static str)> {
    RESOURCES.iter().flat_map(|r| ACTIONS.map(|action| (*r, action))).collect()
}

async fn decisions(client: &Client, user: &str) -> Vec<bool> {
    let items = checks().into_iter().map(|(resource, action)| BatchCheckItem {
        user_id: user.into(),
        permission: format!("{resource}:{action}"),
        ..BatchCheckItem::default()
    });
    let request = BatchCheckRequest { items: items.collect(), ..BatchCheckRequest::default() };
    let reply = client.permissions().batch_check(request).await.expect("decisions");
    reply.into_inner().results.into_iter().map(|result| result.allowed).collect()
}

/// F01: the decisions of `BatchCheck` agree with an independent model.
#[tokio::test]
async fn batch_check_agrees_with_the_model_and_denies_users_of_another_tenant() {
    let app = TestApp::shared();
    let (a, b) = (app.create_tenant("a").await, app.create_tenant("b").await);
    let (users_a, users_b) = (create_users(&a).await, create_users(&b).await);

    for ((name, permissions), (user_a, user_b)) in ROLES.iter().zip(users_a.iter().zip(&users_b)) {
        let expected: Vec<_> =
            checks().iter().map(|(r, action)| permits(permissions, r, action)).collect();
        assert_eq!(decisions(&a, user_a).await, expected, "{name}");
        assert_eq!(decisions(&b, user_b).await, expected, "{name}");
        let all_denied = vec![false; expected.len()];
        assert_eq!(decisions(&a, user_b).await, all_denied, "{name} of the other tenant");
        assert_eq!(decisions(&b, user_a).await, all_denied, "{name} of the other tenant");
    }
}

/// F01: `Check` and `BatchCheck` make the same decisions.
#[tokio::test]
async fn check_and_batch_check_agree() {
    let app = TestApp::shared();
    let acme = app.create_tenant("acme").await;

    for user in create_users(&acme).await {
        let batch_decisions = decisions(&acme, &user).await;
        assert_eq!(batch_decisions.len(), checks().len());
        for ((resource, action), allowed) in checks().into_iter().zip(batch_decisions) {
            let request = CheckRequest {
                user_id: user.clone(),
                permission: format!("{resource}:{action}"),
                ..CheckRequest::default()
            };
            assert_eq!(acme.decide(request).await.allowed, allowed, "{resource}:{action}");
        }
    }
}
