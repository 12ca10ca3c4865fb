//! J09: created and deleted objects leave no memory or file descriptors behind.

use std::fs;

use tenantry::proto::v1::{
    CheckRequest, DeleteUserRequest, LogoutRequest, RegisterRequest, WhoAmIRequest,
};

use crate::harness::{Client, PASSWORD, Serving};

/// The caches have space for few entries, so that they evict from the first round on.
const SETTINGS: &[(&str, &str)] =
    &[("MEMORY_SUBJECT_BYTES", "20000"), ("MEMORY_TOKENS", "50"), ("TENANT_REGISTRATION", "open")];

const ROUNDS: u64 = 30;
/// Number of sign-ins in a round.
const SIGN_INS: u64 = 3;
/// Number of users per sign-in.
const USERS: u64 = 20;

/// Registers a tenant. Its administrator signs in, creates, checks and deletes users, and signs
/// out.
async fn churn(nobody: &Client, name: &str) {
    let slug = format!("t-{name}");
    let email = format!("admin@{slug}.test");
    let request = RegisterRequest {
        email: email.clone(),
        password: PASSWORD.into(),
        organization_name: format!("The {slug} company"),
        organization_slug: slug.clone(),
        ..RegisterRequest::default()
    };
    nobody.auth().register(request).await.expect("signs up");
    for _ in 0..SIGN_INS {
        let admin = nobody.login(&slug, &email, PASSWORD).await;
        for n in 0..USERS {
            let user = admin.create_user_without_password(&format!("u{n}@{slug}.test")).await;
            let question = CheckRequest {
                user_id: user.clone(),
                permission: format!("doc-{n}:read"),
                ..CheckRequest::default()
            };
            admin.decide(question).await;
            let request = DeleteUserRequest { user_id: user, ..DeleteUserRequest::default() };
            admin.users().delete_user(request).await.expect("deleted");
        }
        admin.auth().logout(LogoutRequest::default()).await.expect("signs out");
        admin.auth().who_am_i(WhoAmIRequest {}).await.expect_err("signed out");
    }
}

fn open_files(serving: &Serving) -> usize {
    let pid = serving.process.id().expect("it runs");
    fs::read_dir(format!("/proc/{pid}/fd")).expect("it runs").count()
}

#[tokio::test(flavor = "multi_thread")]
async fn churn_of_tenants_users_and_tokens_leaves_nothing_behind() {
    let serving = Serving::start(SETTINGS).await;
    let nobody = Client::anonymous(serving.channel.clone());
    // Caches and buffers reach their full size in these rounds.
    for n in 0..10 {
        churn(&nobody, &format!("warm-{n}")).await;
    }
    let (memory, files) = (serving.status("VmRSS"), open_files(&serving));
    for n in 0..ROUNDS {
        churn(&nobody, &format!("cold-{n}")).await;
    }
    // In KiB: less than one for each user that was created.
    let grown = serving.status("VmRSS").saturating_sub(memory);
    assert!(grown < ROUNDS * SIGN_INS * USERS, "{grown} KiB");
    assert!(open_files(&serving) <= files + 2, "{} after {files}", open_files(&serving));
    serving.stop().await;
}
