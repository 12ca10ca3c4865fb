//! More concurrent sign-ins than hashing threads.

use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt, future::join_all, stream};
use tenantry::proto::v1::{
    CreateUserRequest, LoginRequest, RegisterRequest, create_user_request::Credential,
};
use tonic::Code;

use super::SLACK;
use crate::{
    harness::{Client, PASSWORD, Serving, reason},
    limits::address,
};

/// Memory of one hash in the server's settings, in KiB.
const ARGON2: u64 = 19_456;

/// G06: memory is limited by the number of hashing threads, and the number of waiting sign-ins
/// by the queue. Other calls are answered meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_is_refused_and_memory_stays_bounded() {
    let serving = Serving::start(&[("HASHING_THREADS", "2"), ("HASHING_QUEUE", "16")]).await;
    let acme = Client::anonymous(serving.channel.clone()).sign_up_tenant("acme").await;
    let before = serving.status("VmRSS");
    let sign_in = |n: usize| {
        let request = LoginRequest {
            // Each sign-in has another account, so that no limit per account applies.
            email: format!("user-{n}@acme.test"),
            password: PASSWORD.into(),
            organization_slug: "acme".into(),
            ..LoginRequest::default()
        };
        let mut auth = acme.auth();
        async move { auth.login(request).await.expect_err("nobody is there") }
    };
    let flood = join_all((0..1000).map(sign_in));
    let (refusals, allowed) = tokio::join!(flood, async {
        let mut allowed = 0;
        for _ in 0..100 {
            allowed += usize::from(acme.may("", "doc:read").await);
        }
        allowed
    });
    assert_eq!(allowed, 100);
    let full = refusals.iter().filter(|status| status.code() == Code::ResourceExhausted).count();
    assert!(full > 500, "{full}");
    for status in refusals {
        let reason = reason(&status);
        assert!(
            ["HASHING_QUEUE_FULL", "INVALID_CREDENTIALS"].contains(&reason.as_str()),
            "{reason}"
        );
    }
    assert!(serving.status("VmHWM") < before + 4 * ARGON2 + SLACK);
}

/// Number of wrong passwords and of refusals in a flood of sign-ins.
#[derive(Default, Debug)]
struct Answers {
    wrong: usize,
    refused: usize,
}

/// N12: one tenant's users have the most expensive hashes that may be imported, and a client
/// guesses passwords of all of them. Each sign-in in another tenant must succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_in_one_tenant_refuses_none_in_another() {
    // The flood waits longer than the usual timeout, because the test is about its effect on
    // others.
    let settings = [("HASHING_THREADS", "2"), ("HASHING_QUEUE", "16"), ("REQUEST_TIMEOUT", "120s")];
    let serving = Serving::start(&settings).await;
    let nobody = || Client::anonymous(serving.channel.clone());
    let (acme, globex) = (nobody().sign_up_tenant("acme").await, "globex");
    nobody().sign_up_tenant(globex).await;
    let emails: Vec<_> = (0..40).map(|number| format!("user-{number}@acme.test")).collect();
    for email in &emails {
        import(&acme, email).await;
    }

    let over = AtomicBool::new(false);
    let guesses = async |email: &String| {
        let mut answers = Answers::default();
        while !over.load(Ordering::Relaxed) {
            let request = LoginRequest {
                email: email.clone(),
                password: "not this one".into(),
                organization_slug: "acme".into(),
                ..LoginRequest::default()
            };
            let status = nobody().auth().login(request).await.expect_err("it is wrong");
            match reason(&status).as_str() {
                "INVALID_CREDENTIALS" => answers.wrong += 1,
                // The others continue the flood. There are as many of them as queue slots.
                "HASHING_QUEUE_FULL" => {
                    answers.refused += 1;
                    break;
                }
                "RATE_LIMITED" => break,
                other => panic!("{other}"),
            }
        }
        answers
    };
    let sign_ins = async {
        for _ in 0..12 {
            nobody().login(globex, "admin@globex.test", PASSWORD).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let (flood, ()) = tokio::join!(join_all(emails.iter().map(guesses)), sign_ins);
    let refused: usize = flood.iter().map(|answers| answers.refused).sum();
    let wrong: usize = flood.iter().map(|answers| answers.wrong).sum();
    assert!(refused > 0 && wrong > 0, "no flood: {refused} refused, {wrong} wrong");
}

/// Creates a user with the most expensive hash that may be imported.
async fn import(tenant: &Client, email: &str) {
    let hash = bcrypt::hash_with_salt(PASSWORD, 12, [7; 16]).expect("bcrypt").to_string();
    let request = CreateUserRequest {
        email: email.into(),
        credential: Some(Credential::PasswordHash(hash)),
        ..CreateUserRequest::default()
    };
    tenant.users().create_user(request).await.expect("imported");
}

/// Guesses passwords of these accounts until `over` is set, each account from one of the
/// networks. Returns the number of compared and of refused passwords.
async fn flood(
    server: &Serving,
    over: &AtomicBool,
    networks: &[String],
    accounts: &[(String, String)],
) -> Answers {
    let guesses = async |(number, (slug, email)): (usize, &(String, String))| {
        let network = &networks[number % networks.len()];
        let client = Client::anonymous(server.channel.clone()).with("x-forwarded-for", network);
        let mut answers = Answers::default();
        while !over.load(Ordering::Relaxed) {
            let request = LoginRequest {
                email: email.clone(),
                password: "not this one".into(),
                organization_slug: slug.clone(),
                ..LoginRequest::default()
            };
            let status = client.auth().login(request).await.expect_err("it is wrong");
            match reason(&status).as_str() {
                "INVALID_CREDENTIALS" => answers.wrong += 1,
                "HASHING_QUEUE_FULL" => answers.refused += 1,
                "RATE_LIMITED" => break,
                other => panic!("{other}"),
            }
        }
        answers
    };
    let all = join_all(accounts.iter().enumerate().map(guesses)).await;
    let sum = |of: fn(&Answers) -> usize| all.iter().map(of).sum();
    Answers { wrong: sum(|answers| answers.wrong), refused: sum(|answers| answers.refused) }
}

/// N12: a flood in more tenants than queue slots is limited by its network.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_in_many_tenants_from_one_network_refuses_none_from_another() {
    let settings = [
        ("HASHING_THREADS", "2"),
        ("HASHING_QUEUE", "16"),
        ("REQUEST_TIMEOUT", "120s"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
    ];
    let server = Serving::start(&settings).await;
    let nobody = || Client::anonymous(server.channel.clone());
    let tenants = stream::iter(0..30).map(|number| async move {
        let tenant = nobody().sign_up_tenant(&format!("evil-{number}")).await;
        let email = format!("user@evil-{number}.test");
        import(&tenant, &email).await;
        (tenant.slug, email)
    });
    let accounts: Vec<_> = tenants.buffered(2).collect().await;
    nobody().sign_up_tenant("globex").await;

    let over = AtomicBool::new(false);
    let networks = [address()];
    let sign_ins = async {
        for _ in 0..12 {
            nobody().login("globex", "admin@globex.test", PASSWORD).await;
        }
        over.store(true, Ordering::Relaxed);
    };
    let (flood, ()) = tokio::join!(flood(&server, &over, &networks, &accounts), sign_ins);
    assert!(flood.refused > 0 && flood.wrong > 0, "no flood: {flood:?}");
}

/// N12: sign-ins to unknown tenants take no share from others. Meanwhile, sign-ins without a
/// tenant and registrations succeed.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_sign_ins_to_unknown_tenants_refuses_no_others() {
    let settings = [
        ("HASHING_THREADS", "2"),
        ("HASHING_QUEUE", "40"),
        ("REQUEST_TIMEOUT", "120s"),
        ("TRUSTED_PROXIES", "127.0.0.1"),
        ("TENANTLESS_SIGN_IN", "any"),
    ];
    let server = Serving::start(&settings).await;
    let nobody = || Client::anonymous(server.channel.clone());
    let acme = nobody().sign_up_tenant("acme").await;
    let over = AtomicBool::new(false);
    let networks = [(); 4].map(|()| address());
    let account = |number| (format!("nowhere-{number}"), "who@x.test".to_owned());
    let accounts: Vec<_> = (0..80).map(account).collect();
    let sign_ins = async {
        for number in 0..6 {
            let request = LoginRequest {
                email: acme.email.clone(),
                password: PASSWORD.into(),
                ..LoginRequest::default()
            };
            nobody().auth().login(request).await.expect("signs in without a tenant");
            let request = RegisterRequest {
                email: "boss@new.test".into(),
                password: PASSWORD.into(),
                organization_name: format!("New {number}"),
                ..RegisterRequest::default()
            };
            nobody().auth().register(request).await.expect("a tenant is registered");
        }
        over.store(true, Ordering::Relaxed);
    };
    let (flood, ()) = tokio::join!(flood(&server, &over, &networks, &accounts), sign_ins);
    assert!(flood.refused > 0 && flood.wrong > 0, "no flood: {flood:?}");
}
