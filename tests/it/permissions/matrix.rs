//! Check against an independent model, for each role.

use tenantry::proto::v1::{BatchCheckItem, BatchCheckRequest, CheckRequest, RoleLevel};

use crate::harness::{Client, TestApp};

const ROLES: [(&str, &[&str]); 6] = [
    ("nothing", &[]),
    ("reader", &["doc:read", "bill:read"]),
    ("doc-keeper", &["doc:*"]),
    ("auditor", &["*:read"]),
    ("mixed", &["bill:write", "team.a:*", "*:list", "doc_x:read"]),
    ("near-misses", &["docs:read", "do:read", "doc-x:*", "bill:reads"]),
];
const RESOURCES: [&str; 8] =
    ["doc", "docs", "doc_x", "doc-x", "bill", "team.a", "team", "permission"];
const ACTIONS: [&str; 5] = ["read", "write", "list", "reads", "delete"];

/// The model: the meaning of a role's permissions, written differently from the server's code.
fn permits(words: &[&str], resource: &str, action: &str) -> bool {
    let names = [
        format!("{resource}:{action}"),
        format!("{resource}:*"),
        format!("*:{action}"),
        "*:*".to_owned(),
    ];
    words.iter().any(|word| names.iter().any(|name| name == word))
}

/// One user for each role of the table.
async fn staff(admin: &Client) -> Vec<String> {
    let mut users = Vec::new();
    for (name, permissions) in ROLES {
        let user = admin.create_user_without_password(&format!("{name}@x.test")).await;
        let role = admin.create_role(name, RoleLevel::Member, permissions).await;
        admin.assign(&user, &role).await;
        users.push(user);
    }
    users
}

fn questions() -> Vec<(&'static str, &'static str)> {
    RESOURCES.iter().flat_map(|r| ACTIONS.map(|action| (*r, action))).collect()
}

async fn answers(asker: &Client, user: &str) -> Vec<bool> {
    let items = questions().into_iter().map(|(resource, action)| BatchCheckItem {
        user_id: user.into(),
        permission: format!("{resource}:{action}"),
        ..BatchCheckItem::default()
    });
    let request = BatchCheckRequest { items: items.collect(), ..BatchCheckRequest::default() };
    let reply = asker.permissions().batch_check(request).await.expect("decisions");
    reply.into_inner().results.into_iter().map(|result| result.allowed).collect()
}

/// F01
#[tokio::test]
async fn each_role_grants_exactly_what_the_model_says_in_its_own_tenant_only() {
    let app = TestApp::shared();
    let (a, b) = (app.tenant("a").await, app.tenant("b").await);
    let (staff_a, staff_b) = (staff(&a).await, staff(&b).await);

    for ((name, words), (user_a, user_b)) in ROLES.iter().zip(staff_a.iter().zip(&staff_b)) {
        let model: Vec<_> =
            questions().iter().map(|(r, action)| permits(words, r, action)).collect();
        assert_eq!(answers(&a, user_a).await, model, "{name}");
        assert_eq!(answers(&b, user_b).await, model, "{name}");
        let none = vec![false; model.len()];
        assert_eq!(answers(&a, user_b).await, none, "{name} of the other tenant");
        assert_eq!(answers(&b, user_a).await, none, "{name} of the other tenant");
    }
}

/// F01
#[tokio::test]
async fn check_and_batch_check_agree() {
    let app = TestApp::shared();
    let acme = app.tenant("acme").await;

    for user in staff(&acme).await {
        let together = answers(&acme, &user).await;
        assert_eq!(together.len(), questions().len());
        for ((resource, action), allowed) in questions().into_iter().zip(together) {
            let question = CheckRequest {
                user_id: user.clone(),
                permission: format!("{resource}:{action}"),
                ..CheckRequest::default()
            };
            assert_eq!(acme.decide(question).await.allowed, allowed, "{resource}:{action}");
        }
    }
}
