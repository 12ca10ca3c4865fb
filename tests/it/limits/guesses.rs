//! Limits on wrong passwords: the guesser must wait, and the owner of the account need not wait.

use std::time::Duration;

use futures::future::join_all;
use tenantry::proto::v1::{ChangePasswordRequest, GetJwksRequest, WhoAmIRequest};
use tonic::Code;

use super::{address, at, guess, sign_in, trusting_local_proxy, wait, wrong};
use crate::harness::{Client, PASSWORD, Proxy, TestApp, Then, redis, refused, unknown_id, until};

/// Number of failures of one network before its sign-ins must wait.
const FREE_FAILURES: usize = 10;

async fn acme() -> (TestApp, Client) {
    let app = TestApp::with_full_hashes(|values| {
        trusting_local_proxy(values);
        // All calls are in one tenant, which may use only a part of each of these limits.
        values.set("HASHING_QUEUE", "2000");
        values.set("MAX_REQUESTS", "8000");
    })
    .await;
    let acme = app.tenant("acme").await;
    (app, acme)
}

/// Ends the waits of all accounts of a tenant.
async fn end_waits(acme: &Client) {
    let key_list = redis(&format!("KEYS guess:{{{}}}*", acme.tenant_id)).await;
    for key in
        key_list.lines().filter(|line| line.contains(":here:") || line.contains(":everywhere"))
    {
        redis(&format!("HSET {} until 0", key.trim())).await;
    }
}

/// B10, R8: the wait applies to the network of the failures, and doubles with each failure.
#[tokio::test]
async fn after_ten_failures_the_network_waits_and_the_owner_does_not() {
    let (app, acme) = acme().await;
    let (attacker, owner) = (at(&app, &address()), at(&app, &address()));
    let correct_sign_in = || sign_in(&acme.email, "acme", PASSWORD);
    for _ in 0..FREE_FAILURES {
        wrong(guess(&attacker, &acme.email, "acme").await);
    }
    let first_delay = wait(guess(&attacker, &acme.email, "acme").await);
    assert!(
        first_delay > Duration::from_secs(25) && first_delay <= Duration::from_secs(30),
        "{first_delay:?}"
    );
    wait(attacker.auth().login(correct_sign_in()).await.expect_err("it must wait"));
    owner.auth().login(correct_sign_in()).await.expect("signs in");
    // The owner's success does not end the attacker's wait.
    wait(guess(&attacker, &acme.email, "acme").await);

    // Each further failure doubles the wait, up to an hour.
    for expected_delay in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
        end_waits(&acme).await;
        wrong(guess(&attacker, &acme.email, "acme").await);
        let retry_delay = wait(guess(&attacker, &acme.email, "acme").await).as_secs();
        assert!(
            retry_delay > expected_delay - 5 && retry_delay <= expected_delay,
            "waits {retry_delay} s instead of {expected_delay} s"
        );
    }
}

#[tokio::test]
async fn a_success_resets_the_failures() {
    let (app, acme) = acme().await;
    let client = at(&app, &address());
    for _ in 0..3 {
        for _ in 1..FREE_FAILURES {
            wrong(guess(&client, &acme.email, "acme").await);
        }
        let correct_sign_in = sign_in(&acme.email, "acme", PASSWORD);
        client.auth().login(correct_sign_in).await.expect("signs in");
    }
}

/// R9: the limit does not reveal whether an account exists.
#[tokio::test]
async fn unknown_accounts_are_limited_like_existing_ones() {
    let (app, _) = acme().await;
    for slug in ["acme", "nowhere"] {
        let client = at(&app, &address());
        let [first_email, second_email] = [(); 2].map(|()| format!("{}@acme.test", unknown_id()));
        for _ in 0..FREE_FAILURES {
            wrong(guess(&client, &first_email, slug).await);
        }
        wait(guess(&client, &first_email, slug).await);
        // Another unknown account has its own counter, so the caller cannot see that neither
        // account exists.
        wrong(guess(&client, &second_email, slug).await);
    }
}

/// B12: concurrency does not increase the number of compared passwords.
#[tokio::test]
async fn concurrent_guesses_are_limited_like_sequential_ones() {
    let (app, acme) = acme().await;
    let attacker = at(&app, &address());
    let guesses = (0..500).map(|at| {
        let (attacker, email) = (&attacker, &acme.email);
        async move {
            let password = if at == 400 { PASSWORD } else { "not this one" };
            attacker.auth().login(sign_in(email, "acme", password)).await
        }
    });
    let mut compared = 0;
    for reply in join_all(guesses).await {
        let status = reply.expect_err("the correct password was compared");
        match status.code() {
            Code::Unauthenticated => compared += 1,
            _ => _ = wait(status),
        }
    }
    assert!((FREE_FAILURES..=60).contains(&compared), "{compared} passwords were compared");
    let correct_sign_in = sign_in(&acme.email, "acme", PASSWORD);
    wait(attacker.auth().login(correct_sign_in).await.expect_err("it must wait"));
}

/// R8: a network with an earlier success has its own limit.
#[tokio::test]
async fn failures_from_many_networks_do_not_block_the_owners_known_network() {
    let (app, acme) = acme().await;
    let known_network = at(&app, &address());
    let correct_sign_in = || sign_in(&acme.email, "acme", PASSWORD);
    known_network.auth().login(correct_sign_in()).await.expect("signs in");
    for _ in 0..10 {
        let attacker = at(&app, &address());
        for _ in 0..FREE_FAILURES {
            wrong(guess(&attacker, &acme.email, "acme").await);
        }
    }
    wait(guess(&at(&app, &address()), &acme.email, "acme").await);
    wait(
        at(&app, &address()).auth().login(correct_sign_in()).await.expect_err("an unknown network"),
    );
    wrong(guess(&known_network, &acme.email, "acme").await);
    known_network.auth().login(correct_sign_in()).await.expect("signs in at home");
    // This success resets the account's counter, so no other network must wait.
    at(&app, &address()).auth().login(correct_sign_in()).await.expect("signs in elsewhere");
}

/// A wrong current password in `ChangePassword` is counted as a guess.
#[tokio::test]
async fn the_holder_of_a_session_cannot_guess_its_password() {
    let (app, acme) = acme().await;
    let session_holder = acme.with("x-forwarded-for", &address());
    let change = || async {
        let request = tenantry::proto::v1::ChangePasswordRequest {
            current_password: "not this one".into(),
            new_password: "another one altogether".into(),
        };
        session_holder.auth().change_password(request).await
    };
    for _ in 0..FREE_FAILURES {
        refused(change().await, Code::Unauthenticated, "INVALID_CREDENTIALS");
    }
    wait(change().await.expect_err("it must wait"));
    let other_network = at(&app, &address());
    other_network.auth().login(sign_in(&acme.email, "acme", PASSWORD)).await.expect("signs in");
}

/// Redis keys of a tenant's guesses.
async fn keys(acme: &Client) -> Vec<String> {
    let key_list = redis(&format!("KEYS guess:{{{}}}*", acme.tenant_id)).await;
    key_list
        .lines()
        .filter(|line| line.starts_with("guess:"))
        .map(|key| key.trim().into())
        .collect()
}

/// N26: a stored wait far in the future, from a wrong Redis clock, is shortened to an hour.
#[tokio::test]
async fn a_wrong_clock_makes_no_wait_longer_than_an_hour() {
    let (app, acme) = acme().await;
    let client = at(&app, &address());
    wrong(guess(&client, &acme.email, "acme").await);
    let keys = keys(&acme).await;
    let network_key = keys.iter().find(|key| key.contains(":here:")).expect("a key");
    let pending_key = network_key.replace(":here:", ":underway:");
    for until in ["9999999999999", "inf", "1e300"] {
        redis(&format!("HSET {network_key} until {until}")).await;
        let retry_delay = wait(guess(&client, &acme.email, "acme").await);
        assert!(retry_delay <= Duration::from_hours(1), "{until}: {retry_delay:?}");
        let expiry = redis(&format!("PTTL {network_key}")).await;
        let expiry: i64 =
            expiry.lines().next().and_then(|l| l[1..].parse().ok()).expect("a number");
        assert!(
            (0..=3_600_000).contains(&expiry),
            "the expiry of the key is at most an hour: {expiry}"
        );
        let stored_value = redis(&format!("HGET {network_key} until")).await;
        assert!(!stored_value.contains(until), "the wait is shortened: {stored_value}");
    }
    for until in ["nan", "-inf", "-1", "x"] {
        redis(&format!("HSET {network_key} until {until}")).await;
        wrong(guess(&client, &acme.email, "acme").await);
    }
    for command in [
        format!("SET {pending_key} 1000000 PX 315360000000"),
        format!("SET {pending_key} 1000000"),
        format!("SET {pending_key} nan"),
    ] {
        redis(&command).await;
        wrong(guess(&client, &acme.email, "acme").await);
    }
}

/// N23: keys with a value of another Redis type are removed, and counting continues.
#[tokio::test]
async fn keys_of_a_wrong_type_do_not_stop_the_counting_of_guesses() {
    let (app, acme) = acme().await;
    let client = at(&app, &address());
    wrong(guess(&client, &acme.email, "acme").await);
    let guess_keys = keys(&acme).await;
    assert!(guess_keys.len() > 1, "{guess_keys:?}");
    for key in guess_keys {
        redis(&format!("DEL {key}")).await;
        redis(&format!("LPUSH {key} x")).await;
        wrong(guess(&client, &acme.email, "acme").await);
        let correct_sign_in = sign_in(&acme.email, "acme", PASSWORD);
        client.auth().login(correct_sign_in).await.expect("signs in");
    }
}

/// Sum of the failures of a tenant's accounts, over all networks.
async fn failures(acme: &Client) -> usize {
    let key_list = redis(&format!("KEYS guess:{{{}}}*:here:*", acme.tenant_id)).await;
    let mut all = 0;
    for key in key_list.lines().filter(|line| line.contains(":here:")) {
        let answer = redis(&format!("HGET {} failures", key.trim())).await;
        let counts = answer.lines().filter_map(|line| line.trim().parse::<usize>().ok());
        all += counts.sum::<usize>();
    }
    all
}

/// N18: the server compares, counts and records a cancelled guess like a wrong password, even when
/// the password is correct.
#[tokio::test(flavor = "multi_thread")]
async fn cancelled_guesses_are_counted_and_recorded() {
    let direct = TestApp::spawn().await;
    let acme = direct.tenant("acme").await;
    let proxy = Proxy::postgres().await;
    let url = proxy.postgres_url(&direct.database);
    let app = TestApp::on(&direct.database, |values| {
        trusting_local_proxy(values);
        values.set("DATABASE_URL", url);
    })
    .await;
    let network = address();
    let attacker = at(&app, &network);
    let session_holder = acme.on(&app.channel).with("x-forwarded-for", &network);
    session_holder.auth().who_am_i(WhoAmIRequest {}).await.expect("itself");
    // Wait until this replica reaches Redis. Without Redis, the replica counts only in memory.
    let local_counts = async || app.metric("tenantry_rate_counted_alone_total").await;
    until(10, || async {
        let before = local_counts().await;
        wrong(guess(&at(&app, &address()), "nobody@nowhere.test", "nowhere").await);
        local_counts().await == before
    })
    .await;
    for cancelled_guesses in 1..=FREE_FAILURES {
        let (mut guesses, mut changes) = (attacker.auth(), session_holder.auth());
        let change = ChangePasswordRequest {
            current_password: "not this one".into(),
            new_password: "another one altogether".into(),
        };
        let is_change = cancelled_guesses == 1;
        // The last guess has the correct password. The client gets no answer, so the guess is also
        // counted as a failure.
        let password = if cancelled_guesses == FREE_FAILURES { PASSWORD } else { "not this one" };
        // A sign-in sends the slug to Postgres.
        proxy.when_sent(if is_change { "from credentials" } else { "acme" }, Then::Hold);
        tokio::select! {
            _ = changes.change_password(change), if is_change => panic!("it was held"),
            _ = guesses.login(sign_in(&acme.email, "acme", password)), if !is_change => {
                panic!("it was held")
            }
            () = proxy.until_held() => {}
        }
        // When the server has answered these calls, it has also received the cancellation.
        for _ in 0..2 {
            attacker.auth().get_jwks(GetJwksRequest {}).await.expect("keys");
        }
        proxy.pass();
        until(10, || async { failures(&acme).await == cancelled_guesses }).await;
    }
    wait(guess(&attacker, &acme.email, "acme").await);
    assert_eq!(direct.audited(&acme.tenant_id, "password_change_failed").await, 1);
    assert_eq!(direct.audited(&acme.tenant_id, "sign_in_failed").await, 9);
}

/// N15: an unknown tenant has its own counter, like an existing tenant.
#[tokio::test]
async fn unknown_tenants_are_counted_separately() {
    let app = TestApp::with(|values| {
        trusting_local_proxy(values);
        values.set("RATE_LIMIT_SIGN_IN", "off,5/1h");
    })
    .await;
    let [first_tenant, second_tenant] =
        [(); 2].map(|()| format!("nowhere-{}", &unknown_id()[24..]));
    let guess_at = async |slug: &str| guess(&at(&app, &address()), "who@x.test", slug).await;
    for _ in 0..5 {
        wrong(guess_at(&first_tenant).await);
    }
    wait(guess_at(&first_tenant).await);
    wrong(guess_at(&second_tenant).await);
}

/// N23: an invalid stored value restarts the counter, and every guess is counted.
#[tokio::test]
async fn guesses_are_counted_after_invalid_values_in_redis() {
    let (app, acme) = acme().await;
    let long = "9".repeat(1000);
    for (field, value) in [
        ("failures", "x"),
        ("failures", "9223372036854775807"),
        ("failures", "-1000000"),
        ("failures", &long),
        ("underway", "0.5"),
        ("underway", &long),
    ] {
        let (client, email) = (at(&app, &address()), format!("{}@acme.test", unknown_id()));
        let before = keys(&acme).await;
        wrong(guess(&client, &email, "acme").await);
        let mut new_keys = keys(&acme).await;
        new_keys.retain(|key| !before.contains(key));
        let find = |part: &str| new_keys.iter().find(|key| key.contains(part)).expect("a key");
        let (network_key, account_key) = (find(":here:"), find(":everywhere"));
        redis(&format!("DEL {account_key}")).await;
        if field == "underway" {
            let key = network_key.replace(":here:", ":underway:");
            redis(&format!("DEL {network_key}")).await;
            redis(&format!("SET {key} {value} PX 20000")).await;
        } else {
            redis(&format!("HSET {network_key} {field} {value}")).await;
        }
        for _ in 0..FREE_FAILURES {
            wrong(guess(&client, &email, "acme").await);
        }
        wait(guess(&client, &email, "acme").await);
        for key in [network_key, account_key] {
            let failures = redis(&format!("HGET {key} failures")).await;
            assert_eq!(failures.lines().nth(1), Some("10"), "{field} {value:.20}");
        }
    }
}
